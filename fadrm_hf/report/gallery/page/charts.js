// Plots: bars as elements, curves as SVG, in the colours of the style sheet.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A bar from 0 to `share` of its width, optionally with a whisker of one deviation to both sides.
function bar(share, deviation = 0, kind = "") {
  const whisker = node("span", { class: "whisker" });
  const filled = node("span", { class: `filled ${kind}` });
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  const low = Math.max(0, share - deviation);
  whisker.style.left = `${100 * low}%`;
  whisker.style.width = `${100 * (Math.min(1, share + deviation) - low)}%`;
  return node("span", { class: "bar", "aria-hidden": "true" }, filled, ...(deviation > 0 ? [whisker] : []));
}

// Round numbers that divide an interval into about four parts.
function ticks(low, high) {
  const rough = (high - low) / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) found.push(tick);
  return found;
}

// A curve through points [x, y] in their order, with its axes; screen readers read `label`.
function curve(points, { label, xTitle, yTitle }) {
  const [width, height, left, right, top, bottom] = [420, 220, 44, 12, 14, 36];
  const range = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - margin, high + margin];
  };
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs) || 1];
  const [yLow, yHigh] = range(ys);
  const across = (x) => left + ((width - left - right) * (x - xLow)) / (xHigh - xLow || 1);
  const up = (y) => height - bottom - ((height - top - bottom) * (y - yLow)) / (yHigh - yLow);
  const text = (x, y, anchor, words) => shape("text", { x, y, "text-anchor": anchor }, words);
  const plot = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "curve" });
  for (const tick of ticks(yLow, yHigh)) {
    plot.append(shape("line", { x1: left, x2: width - right, y1: up(tick), y2: up(tick), class: "grid" }));
    plot.append(text(left - 6, up(tick) + 4, "end", String(Number(tick.toPrecision(6)))));
  }
  for (const tick of ticks(xLow, xHigh)) {
    plot.append(text(across(tick), height - bottom + 18, "middle", tick.toLocaleString("en")));
  }
  plot.append(text((left + width - right) / 2, height - 2, "middle", xTitle));
  plot.append(text(left, 9, "start", yTitle));
  plot.append(shape("polyline", { points: points.map(([x, y]) => `${across(x)},${up(y)}`).join(" "), class: "path" }));
  for (const [x, y] of points) plot.append(shape("circle", { cx: across(x), cy: up(y), r: 3, class: "point" }));
  return plot;
}
