// The gallery of one artifact: FACTS are in data.js, VIEWS in views.js.
"use strict";

const sheets = new Sheets(FACTS.pictures);
const numClasses = FACTS.classes.length;
const element = (id) => document.getElementById(id);
const isPaired = sheets.first >= 0;
const isCoarse = sheets.side === FACTS.size && sheets.side < 64; // pixels of images, to be shown as squares
let stage = sheets.last;

function introduce() {
  const from = FACTS.isDistilled ? `distilled from ${FACTS.source} by ${FACTS.method}` : `chosen at random from ${FACTS.source}`;
  const images = counted(FACTS.ipc * numClasses, "image");
  const lede = element("lede");
  lede.append(`${images} of ${FACTS.size} × ${FACTS.size} pixels in ${counted(numClasses, "class")}, ${from}`);
  if (FACTS.paper) lede.append(" (", node("a", { href: FACTS.paper.url }, `arXiv ${FACTS.paper.arxiv}`), ")");
  lede.append(FACTS.hasLabels ? `, with soft labels for ${counted(FACTS.labelEpochs, "view")} of each.` : ".");
  const beside = isPaired ? `Each recovered image is below the ${sheets.stages[sheets.first].title} it started from. ` : "";
  const small = FACTS.pictures.is_whole ? "" : ` Thumbnails of ${sheets.side} pixels are shown.`;
  element("explained").textContent =
    `${beside}Select one to see how it changed, and what the teachers predicted.${small}`;
  element("facts").append(...FACTS.origin.map(factOf));
  element("made").textContent = "Made with fadrm_hf from the files of the artifact. Nothing on this page is fetched from elsewhere.";
}

function factOf({ title, lines, note }) {
  const said = lines.map(([text, address]) => node("dd", {}, linked(text, address)));
  return node("div", {}, node("dt", {}, title), ...said, ...(note ? [node("dd", {}, node("small", {}, note))] : []));
}

// Classes

const rowOf = (label, index) => index * numClasses + label;

function nameOf(row) {
  return `${FACTS.classes[row % numClasses]}, image ${Math.floor(row / numClasses) + 1}`;
}

function pairOf(row, isFirst) {
  const tiles = [...(isPaired ? ["origin"] : []), "now"].map((kind) => node("span", { class: `tile ${kind}` }));
  const pair = node("button", { type: "button", class: "pair", "data-row": row, "aria-label": nameOf(row),
    "aria-haspopup": "dialog", tabindex: isFirst ? "0" : "-1" }, ...tiles);
  if (isPaired) sheets.paint(tiles[0], sheets.first, row);
  sheets.paint(tiles.at(-1), stage, row);
  return pair;
}

function fill(section) {
  const pairs = section.lastElementChild;
  if (pairs.childElementCount) return;
  const label = Number(section.dataset.label);
  pairs.append(...Array.from({ length: FACTS.ipc }, (_, index) => pairOf(rowOf(label, index), index === 0)));
}

function drain(section) {
  if (!section.contains(document.activeElement)) section.lastElementChild.replaceChildren();
}

function sectionOf(name, label) {
  const title = classTitle(name, FACTS.ids[label], { id: `class-${label}` });
  const pairs = node("div", { class: "pairs", role: "group", "aria-labelledby": `class-${label}` });
  return node("section", { class: "class", "data-label": label }, title, pairs);
}

// The height of a class is known before its images are there: nothing jumps while they come and go.
function reserve(area) {
  const { beside, perLine, tile } = arrange(sheets, area.clientWidth, FACTS.ipc, numClasses);
  const lines = Math.ceil(FACTS.ipc / perLine);
  const pair = isPaired ? 2 * (tile + 3) + 4 : tile; // with the marks below both images
  reserveTitles(area, beside, FACTS.ids.some((id, label) => id !== FACTS.classes[label]));
  area.style.setProperty("--tile", `${tile}px`);
  area.style.setProperty("--pairs", `${lines * (pair + GAP) - GAP}px`);
}

// The Tab key stops once per class; arrow keys move within a class.
function moveFocus(event) {
  const pair = event.target.closest(".pair");
  const pairs = pair ? [...pair.parentElement.children] : [];
  const perLine = pairs.filter((other) => other.offsetTop === pairs[0].offsetTop).length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perLine, ArrowDown: perLine, Home: -Infinity, End: Infinity };
  if (!pair || !(event.key in steps)) return;
  event.preventDefault();
  const wanted = Math.min(pairs.length - 1, Math.max(0, pairs.indexOf(pair) + steps[event.key]));
  pair.tabIndex = -1;
  pairs[wanted].tabIndex = 0;
  pairs[wanted].focus();
}

function prepareClasses() {
  const area = element("classes");
  const sections = FACTS.classes.map(sectionOf);
  document.documentElement.classList.toggle("coarse", isCoarse);
  area.classList.toggle("paired", isPaired);
  area.append(...sections);
  reserve(area);
  new ResizeObserver(() => reserve(area)).observe(area);
  prepareFilter(FACTS.ids, FACTS.classes, sections, () => {});
  fillLazily(sections, fill, drain);
  area.addEventListener("keydown", moveFocus);
  area.addEventListener("click", (event) => {
    const pair = event.target.closest(".pair");
    if (pair) open(Number(pair.dataset.row));
  });
}

// Stages

// Set a slider to a stage and name it; returns the name.
function setSlider(slider, value) {
  const { title, rows } = sheets.stages[value];
  const name = rows ? `${title} (available for ${counted(rows.length, "image")})` : title;
  slider.value = String(value);
  slider.setAttribute("aria-valuetext", name);
  return name;
}

function prepareStages() {
  const slider = element("stage");
  for (const each of [slider, element("detail-stage")]) each.max = String(sheets.last);
  element("course-field").hidden = element("detail-field").hidden = sheets.last === 0;
  if (isPaired) element("legend-origin").append(keyOf("origin"), sheets.stages[sheets.first].title);
  sheets.stages.forEach((_, index) => element("stops").append(node("option", { value: index })));
  element("stage-name").textContent = setSlider(slider, stage);
  slider.addEventListener("input", () => {
    stage = Number(slider.value);
    element("stage-name").textContent = setSlider(slider, stage);
    for (const pair of element("classes").querySelectorAll(".pair")) {
      sheets.paint(pair.lastElementChild, stage, Number(pair.dataset.row));
    }
  });
}

// One image

let chosen = 0;

function open(row) {
  chosen = row;
  show();
  if (!element("detail").open) element("detail").showModal();
}

function pictureOf(kind, title) {
  const tile = node("span", { class: `tile ${kind}`, role: "img", "aria-label": title });
  return node("figure", {}, tile, node("figcaption", {}, keyOf(kind), node("span", {}, title)));
}

function show() {
  element("detail-title").textContent = nameOf(chosen);
  const figures = [...(isPaired ? [pictureOf("origin", sheets.stages[sheets.first].title)] : []), pictureOf("now", "")];
  element("stages").replaceChildren(...figures);
  element("stages").style.setProperty("--tile", `${sheets.fitted(256)}px`);
  if (isPaired) sheets.paint(figures[0].firstElementChild, sheets.first, chosen);
  showStage(stage);
  showViews();
}

function showStage(value) {
  const figure = element("stages").lastElementChild;
  const known = sheets.place(value, chosen) !== null;
  const title = known ? sheets.stages[value].title : `${sheets.stages[value].title}: not available for this image`;
  sheets.paint(figure.firstElementChild, value, chosen);
  figure.firstElementChild.setAttribute("aria-label", title);
  figure.lastElementChild.lastElementChild.textContent = title;
  setSlider(element("detail-stage"), value);
}

function step(by) {
  const num = FACTS.ipc * numClasses;
  const [label, index] = [chosen % numClasses, Math.floor(chosen / numClasses)];
  const place = (label * FACTS.ipc + index + by + num) % num; // class after class, as on the page
  open(rowOf(Math.floor(place / FACTS.ipc), place % FACTS.ipc));
}

function showViews() {
  const views = (typeof VIEWS === "undefined" ? {} : VIEWS)[chosen] ?? [];
  const frames = "The frame marks the crop; next to it is the view as the teachers saw it.";
  const mixed = views.some((view) => view.mix) ? " A part of another image may be mixed in." : "";
  const none = FACTS.hasLabels ? "" : " Labels are not stored: the teachers make them while a student trains.";
  const small = sheets.side < FACTS.size ? ` Drawn from thumbnails of ${sheets.side} pixels.` : "";
  element("views").style.setProperty("--own", `${ownSide()}px`);
  element("views-note").textContent = views.length ? `${frames}${mixed}${none}${small}`
    : "The gallery has no views of this image, but of the first images of every class.";
  element("views").replaceChildren(...views.map(viewOf));
}

const boxText = ([top, left, height, width]) => `${width} × ${height} pixels at ${left}, ${top}`;

// The side at which a view is shown: its own, or that enlarged by a whole number.
function ownSide() {
  return FACTS.size < 64 ? FACTS.size * Math.max(1, Math.floor((innerWidth < 500 ? 128 : 160) / FACTS.size)) : FACTS.size;
}

// The frame of a crop needs pixels of the screen; a view has as many as the teachers were shown.
function viewOf(view) {
  const canvases = [["image with its crop", ownSide()], ["view", FACTS.size]].map(([what, side]) =>
    node("canvas", { width: side, height: side, role: "img", "aria-label": `${what}: ${boxText(view.crop)}${view.flip ? ", mirrored" : ""}` }));
  drawView(view, chosen, ...canvases);
  const parts = [`Epoch ${view.epoch}`, ...(view.flip ? ["mirrored"] : []),
    ...(view.mix ? [`mixed with ${nameOf(view.mix.row)}`] : [])];
  const caption = node("figcaption", {}, parts.join(", "));
  return node("figure", { class: "view" }, node("div", { class: "canvases" }, ...canvases), caption, ...saidOf(view.top));
}

function saidOf(top) {
  if (!top.length) return [];
  const rest = 1 - top.reduce((sum, [, share]) => sum + share, 0);
  const line = (name, share, kind) => node("li", {}, node("span", { class: "name" }, name),
    node("span", { class: "number" }, percent(share)), bar(share, 0, kind));
  const own = chosen % numClasses;
  const lines = top.map(([label, share]) => line(FACTS.classes[label], share, label === own ? "own" : ""));
  if (top.length < numClasses) lines.push(line("others", Math.max(0, rest), ""));
  return [node("ol", { class: "said" }, ...lines)];
}

async function drawView(view, row, whole, seen) {
  const scale = sheets.side / FACTS.size;
  const image = await sheets.tiled(row);
  const [a, b] = [whole.getContext("2d"), seen.getContext("2d")];
  a.imageSmoothingEnabled = !isCoarse;
  a.drawImage(image, 0, 0, sheets.side, sheets.side, 0, 0, whole.width, whole.height);
  frame(a, view.crop, whole.width / FACTS.size);
  drawCrop(b, image, view.crop, view.flip, scale);
  if (!view.mix) return;
  const [top, left, height, width] = view.mix.box.map((edge) => (edge * seen.width) / FACTS.size);
  b.save();
  b.beginPath();
  b.rect(left, top, width, height);
  b.clip();
  drawCrop(b, await sheets.tiled(view.mix.row), view.mix.crop, view.mix.flip, scale);
  b.restore();
}

// The crop is cut out first: enlarged within its image, its borders would take in pixels from outside it.
function drawCrop(context, image, crop, isFlipped, scale) {
  const side = context.canvas.width;
  const [top, left, height, width] = crop.map((edge) => Math.round(edge * scale));
  const part = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
  part.getContext("2d").drawImage(image, left, top, part.width, part.height, 0, 0, part.width, part.height);
  context.save();
  if (isFlipped) context.transform(-1, 0, 0, 1, side, 0);
  context.drawImage(part, 0, 0, side, side);
  context.restore();
}

// The border of a crop; a crop that continues at the opposite side is drawn there, too.
function frame(context, [top, left, height, width], scale) {
  const side = context.canvas.width;
  const inset = 1.5;
  const boxes = [[0, 0], [side, 0], [0, side], [side, side]];
  for (const [colour, line] of [["#000", 5], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = line;
    for (const [x, y] of boxes) {
      context.strokeRect(left * scale - x + inset, top * scale - y + inset, width * scale - 2 * inset, height * scale - 2 * inset);
    }
  }
}

function prepareDetail() {
  element("detail-stage").addEventListener("input", (event) => showStage(Number(event.target.value)));
  element("previous").addEventListener("click", () => step(-1));
  element("next").addEventListener("click", () => step(1));
  element("close").addEventListener("click", () => element("detail").close());
  element("detail").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && event.target.type !== "range") step(by);
  });
  element("detail").addEventListener("click", (event) => {
    if (event.target === element("detail")) element("detail").close(); // a click outside it
  });
  element("detail").addEventListener("close", () => {
    element("classes").querySelector(`.pair[data-row="${chosen}"]`)?.focus();
  });
}

// Measured

function accuracyText({ mean, std }, seeds) {
  return `${(100 * mean).toFixed(1)}${seeds > 1 ? ` ± ${(100 * std).toFixed(1)}` : ""}`;
}

function showAccuracy() {
  const area = element("accuracy");
  area.append(node("h3", {}, "Accuracy of students on real test images"));
  if (!FACTS.results.length) {
    area.append(node("p", { class: "note" }, "No student has been trained yet: fadrm-hf train-student, fadrm-hf baselines."));
    return;
  }
  // With roles, so that it remains a table where a narrow screen breaks its rows.
  const titles = ["Trained on", "Top-1 (%)", "Top-5 (%)"];
  const head = node("tr", { role: "row" }, ...titles.map((title) => node("th", { scope: "col", role: "columnheader" }, title)));
  const caption = node("caption", {}, "At the last epoch, mean ± standard deviation over seeds");
  area.append(node("table", { class: "results", role: "table" }, caption, node("thead", { role: "rowgroup" }, head),
    node("tbody", { role: "rowgroup" }, ...FACTS.results.map(resultRow))));
}

function resultRow(result) {
  const details = [result.student, `${result.protocol} protocol`, counted(result.epochs, "epoch"), counted(result.seeds, "seed"),
    ...(result.contributed ? ["contributed by others"] : [])].join(" · ");
  const first = node("th", { scope: "row", role: "rowheader" }, result.kind, node("small", {}, details));
  const top1 = node("td", { class: "measure", role: "cell" }, accuracyText(result.top1, result.seeds),
    bar(result.top1.mean, result.seeds > 1 ? result.top1.std : 0, result.own ? "own" : ""));
  const top5 = node("td", { role: "cell" }, result.top5 ? accuracyText(result.top5, result.seeds) : "–");
  return node("tr", { role: "row" }, first, top1, top5);
}

const CURVES = [["feature_entropy", "Entropy of features (bits)"], ["pixel_entropy", "Entropy of pixels (bits)"]];

function showCourse() {
  const trajectory = FACTS.course;
  const area = element("course");
  area.append(node("h3", {}, "Information density along the optimisation"));
  if (trajectory.length < 2) {
    area.append(node("p", { class: "note" }, "Not measured yet: ", node("code", {}, "fadrm-hf score"), ". A run with ",
      node("code", {}, "--snapshots"), " shows every residual."));
    return;
  }
  const plots = CURVES.map(([key, title]) => {
    const points = trajectory.map((point) => [point.iteration, point[key]]);
    const [from, to] = [points[0][1], points.at(-1)[1]].map((value) => value.toFixed(3));
    const label = `${title}: ${from} at the start, ${to} at the end`;
    return node("figure", {}, curve(points, { label, xTitle: "iteration", yTitle: title }));
  });
  const note = `Mean over ${counted(trajectory[0].num_images, "image")}. Two values at one iteration are before and after real patches were mixed in.`;
  area.append(node("div", { class: "curves" }, ...plots), node("p", { class: "note" }, note));
}

function showScores() {
  if (!FACTS.scores.length) return;
  const rows = FACTS.scores.map(([title, value, better]) => node("tr", {}, node("th", { scope: "row" }, title),
    node("td", {}, value), node("td", {}, better || "–")));
  const head = node("tr", {}, ...["Score", "Value", "Better"].map((title) => node("th", { scope: "col" }, title)));
  element("scores").append(node("h3", {}, "Scores"),
    node("table", { class: "scores" }, node("thead", {}, head), node("tbody", {}, ...rows)));
}

prepareTheme();
introduce();
prepareClasses();
prepareStages();
prepareDetail();
showAccuracy();
showCourse();
showScores();
element("recipes").append(...FACTS.howTo.map(recipe));
