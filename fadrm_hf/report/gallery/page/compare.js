// Several artifacts side by side; COMPARISON is in data.js.
"use strict";

const MOST_IMAGES = 20; // per class and artifact, as many as one takes in at a glance
const element = (id) => document.getElementById(id);
const artifacts = COMPARISON.artifacts.map((facts, index) => ({
  facts,
  kind: `artifact-${index % 4}`,
  sheets: new Sheets(facts.pictures, `${facts.folder}/`),
  labels: new Map(facts.ids.map((id, label) => [id, label])),
}));
const names = COMPARISON.ids.map((id) => artifacts[0].facts.classes[artifacts[0].labels.get(id)]);

const keyOf = ({ kind }) => node("span", { class: `key ${kind}`, "aria-hidden": "true" });

function introduce() {
  for (const artifact of artifacts) {
    const { name, title, size } = artifact.facts;
    element("artifacts").append(node("li", {}, keyOf(artifact), node("strong", {}, name), ` – ${title}, ${size} pixels`));
  }
  const most = Math.max(...artifacts.map(({ facts }) => facts.ipc));
  const part = most > MOST_IMAGES ? ` The first ${MOST_IMAGES} images of each class are shown.` : "";
  element("explained").textContent = `Each class in every dataset.${part}`;
}

// Images

function stripOf(artifact, id) {
  const { facts, sheets, labels } = artifact;
  const side = sheets.scaledTo(72);
  const tiles = Array.from({ length: Math.min(facts.ipc, MOST_IMAGES) }, (_, index) => {
    const tile = node("span", { class: "tile" });
    tile.classList.toggle("pixels", sheets.side < 64);
    tile.style.setProperty("--tile", `${side}px`);
    sheets.paint(tile, sheets.last, index * facts.classes.length + labels.get(id));
    return tile;
  });
  const label = `${counted(tiles.length, "image")} of ${facts.name}`;
  return node("div", { class: "strip" }, node("p", { class: "note" }, keyOf(artifact), ` ${facts.name}`),
    node("div", { class: "tiles", role: "img", "aria-label": label }, ...tiles));
}

function fill(section) {
  if (section.childElementCount === 1) section.append(...artifacts.map((artifact) => stripOf(artifact, section.dataset.id)));
}

// The height stays, so that nothing jumps while images come and go.
function drain(section) {
  if (section.childElementCount === 1) return;
  section.style.minHeight = `${section.offsetHeight}px`;
  section.replaceChildren(section.firstElementChild);
}

function prepareClasses() {
  const sections = COMPARISON.ids.map((id, index) => node("section", { class: "class", "data-id": id }, node("h3", {}, names[index])));
  element("classes").append(...sections);
  element("classes").style.setProperty("--pairs", `${artifacts.reduce((sum, { sheets }) => sum + sheets.scaledTo(72) + 40, 0)}px`);
  prepareFilter(COMPARISON.ids, names, sections, () => {});
  fillLazily(sections, fill, drain);
}

// Plots

function plotOf(title, lines) {
  const rows = lines.map(({ artifact, text, share, deviation }) => node("li", {}, node("span", {}, artifact.facts.name),
    node("span", { class: "number" }, text), bar(share, deviation, artifact.kind)));
  return node("article", {}, node("h3", {}, title), node("ol", { class: "said" }, ...rows));
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
prepareClasses();
