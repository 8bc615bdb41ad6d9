// Several artifacts side by side; COMPARISON is in data.js.
"use strict";

const MOST_IMAGES = 20; // per class and artifact, as many as one takes in at a glance
const element = (id) => document.getElementById(id);
const artifacts = COMPARISON.artifacts.map((facts, index) => ({
  facts,
  kind: `artifact-${index % 6}`,
  sheets: new Sheets(facts.pictures, `${facts.folder}/`),
  labels: new Map(facts.ids.map((id, label) => [id, label])),
  count: Math.min(facts.ipc, MOST_IMAGES),
  arranged: { strip: 0, tile: 0 }, // pixels
}));
const names = COMPARISON.ids.map((id) => artifacts[0].facts.classes[artifacts[0].labels.get(id)]);

function introduce() {
  for (const { facts, kind } of artifacts) {
    const licence = facts.origin.find(({ title }) => title === "Licence").lines[0];
    const paper = facts.paper ? [" · ", linked(`arXiv ${facts.paper.arxiv}`, facts.paper.url)] : [];
    element("artifacts").append(node("li", { class: kind }, node("strong", {}, linked(facts.name, facts.page)),
      node("span", {}, `${facts.title}, ${facts.size} × ${facts.size} pixels`),
      node("small", {}, "Licence: ", linked(...licence), ...paper)));
  }
  const most = Math.max(...artifacts.map(({ facts }) => facts.ipc));
  const part = most > MOST_IMAGES ? ` The first ${MOST_IMAGES} images of each class are shown.` : "";
  element("explained").textContent = `Each class of every dataset, marked by its colour.${part}`;
}

// Images

function stripOf({ facts, kind, sheets, labels, count, arranged }, id) {
  const tiles = Array.from({ length: count }, (_, index) => {
    const tile = node("span", { class: "tile" });
    tile.classList.toggle("pixels", sheets.side < 64 && sheets.side === facts.size);
    sheets.paint(tile, sheets.last, index * facts.classes.length + labels.get(id));
    return tile;
  });
  const label = `${counted(count, "image")} of ${facts.name}`;
  const strip = node("div", { class: `strip ${kind}` }, node("p", { title: facts.name }, facts.name),
    node("div", { class: "tiles", role: "img", "aria-label": label }, ...tiles));
  strip.style.width = `${arranged.strip}px`;
  strip.style.setProperty("--tile", `${arranged.tile}px`);
  return strip;
}

function fill(section) {
  const strips = section.lastElementChild;
  if (!strips.childElementCount) strips.append(...artifacts.map((artifact) => stripOf(artifact, section.dataset.id)));
}

const drain = (section) => section.lastElementChild.replaceChildren();

// All artifacts in one line, several classes beside each other, where images are few; else a column for each artifact.
function reserve(area) {
  const width = area.clientWidth;
  const total = artifacts.reduce((sum, { count }) => sum + count, 0);
  const line = arrange(artifacts[0].sheets, width, total, names.length);
  const isOneLine = line.perLine === total;
  const columns = isOneLine ? artifacts.length
    : Math.min(artifacts.length, Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP))));
  const column = Math.floor((width - (columns - 1) * GAP) / columns);
  const heights = artifacts.map((artifact) => {
    const { sheets, count } = artifact;
    const { perLine, tile } = isOneLine ? { perLine: count, tile: sheets.fitted(line.tile) }
      : arrange(sheets, column, count, 1);
    artifact.arranged = { strip: isOneLine ? count * (line.tile + GAP) - GAP : column, tile };
    return 28 + Math.ceil(count / perLine) * (tile + GAP); // with the name above
  });
  reserveTitles(area, isOneLine ? line.beside : 1, COMPARISON.ids.some((id, index) => id !== names[index]));
  area.style.setProperty("--pairs", `${Math.ceil(artifacts.length / columns) * (Math.max(...heights) + GAP) - GAP}px`);
}

function prepareClasses() {
  const area = element("classes");
  const sections = COMPARISON.ids.map((id, index) => node("section", { class: "class", "data-id": id },
    classTitle(names[index], id), node("div", { class: "strips" })));
  area.append(...sections);
  reserve(area);
  let width = area.clientWidth;
  new ResizeObserver(() => {
    if (area.clientWidth === width) return;
    width = area.clientWidth;
    reserve(area);
    for (const section of sections.filter((each) => each.lastElementChild.childElementCount)) {
      drain(section);
      fill(section);
    }
  }).observe(area);
  prepareFilter(COMPARISON.ids, names, sections, () => {});
  fillLazily(sections, fill, drain);
}

// Settings

function showDifferences() {
  const { rows, numSame } = COMPARISON.differences;
  element("same").textContent = rows.length ? `${counted(numSame, "other setting")} ${numSame === 1 ? "is" : "are"} the same.`
    : "Nothing that is recorded of them differs.";
  if (!rows.length) return;
  const heads = artifacts.map(({ facts, kind }) => node("th", { scope: "col" }, keyOf(kind), facts.name));
  const lines = rows.map(([name, texts]) => node("tr", {},
    node("th", { scope: "row" }, name.includes(".") ? node("code", {}, name) : name),
    ...texts.map((text) => node("td", {}, text))));
  element("differences").append(node("table", {}, node("thead", {}, node("tr", {}, node("td"), ...heads)),
    node("tbody", {}, ...lines)));
}

// Plots

function plotOf(title, lines) {
  const rows = lines.map(({ artifact, text, share, deviation }) => node("li", {}, node("span", {}, artifact.facts.name),
    node("span", { class: "number" }, text), bar(share, deviation, artifact.kind)));
  return node("article", {}, node("h4", {}, title), node("ol", { class: "said" }, ...rows));
}

function showAccuracy() {
  const groups = new Map();
  for (const artifact of artifacts) {
    for (const result of artifact.facts.results.filter((found) => !found.contributed)) {
      const title = `${result.kind} (${result.student}, ${result.protocol})`;
      const { mean, std } = result.top1;
      const several = result.seeds > 1;
      const text = several ? `${(100 * mean).toFixed(1)} ± ${(100 * std).toFixed(1)} %` : percent(mean);
      groups.set(title, [...(groups.get(title) ?? []), { artifact, text, share: mean, deviation: several ? std : 0 }]);
    }
  }
  const plots = [...groups].map(([title, lines]) => plotOf(title, lines));
  element("accuracy").append(node("h3", {}, "Top-1 accuracy of students at the last epoch"), plots.length
    ? node("div", { class: "plots" }, ...plots)
    : node("p", { class: "note" }, "No student has been trained yet: fadrm-hf train-student, fadrm-hf baselines."));
}

// Each score is drawn relative to the largest of its kind; negative scores have no bar.
function showScores() {
  const titles = [...new Set(artifacts.flatMap(({ facts }) => facts.scores.map(([title]) => title)))];
  const plots = titles.map((title) => {
    const having = artifacts.filter(({ facts }) => title in facts.scoreValues);
    const greatest = Math.max(...having.map(({ facts }) => Math.abs(facts.scoreValues[title]))) || 1;
    return plotOf(title, having.map((artifact) => ({
      artifact,
      text: artifact.facts.scores.find(([name]) => name === title)[1],
      share: Math.max(0, artifact.facts.scoreValues[title]) / greatest,
      deviation: 0,
    })));
  });
  if (plots.length) element("scores").append(node("h3", {}, "Scores"), node("div", { class: "plots" }, ...plots));
}

prepareTheme();
introduce();
showAccuracy();
showScores();
showDifferences();
prepareClasses();
