// The position of an image on its sheet, and how it is drawn from there; see pictures.json.
"use strict";

const GAP = 8; // pixels between the images of a class
const BETWEEN = 28; // pixels between classes beside each other
const NARROWEST = 120; // pixels that a class needs for its name

class Sheets {
  #images = new Map();

  // `pictures` as data.js has them; `folder` contains the sheets.
  constructor(pictures, folder = "") {
    Object.assign(this, { side: pictures.side, stages: pictures.stages, folder });
    this.ipc = pictures.ipc;
    this.numClasses = pictures.num_classes;
    this.perSheet = pictures.classes_per_sheet;
    this.positions = this.stages.map((stage) => stage.rows && new Map(stage.rows.map((row, index) => [row, index])));
    this.first = this.stages.findIndex((stage) => stage.name === "start");
    this.last = this.stages.length - 1;
  }

  // The side at which an image is shown in some room, in pixels. Small images are enlarged by whole numbers, so that
  // each pixel stays square; larger ones are never enlarged.
  fitted(room) {
    const times = this.side < 64 ? Math.floor(room / this.side) : 1;
    return this.side >= room ? room : this.side * times;
  }

  // The position of a row of the images table at a stage; null if the stage does not have it.
  place(stage, row) {
    const { files, columns, rows } = this.stages[stage];
    const label = row % this.numClasses;
    const index = Math.floor(row / this.numClasses);
    const sheet = rows ? 0 : Math.floor(label / this.perSheet);
    const position = rows ? this.positions[stage].get(row) : (label % this.perSheet) * this.ipc + index;
    if (position === undefined) return null;
    const inSheet = rows ? rows.length : Math.min(this.perSheet, this.numClasses - sheet * this.perSheet) * this.ipc;
    return {
      url: this.folder + files[sheet],
      column: position % columns,
      line: Math.floor(position / columns),
      columns,
      lines: Math.ceil(inSheet / columns),
    };
  }

  // Show an image as the background of an element; if the stage does not have it, the last stage, faded.
  paint(element, stage, row) {
    const known = this.place(stage, row);
    const { url, column, line, columns, lines } = known ?? this.place(this.last, row);
    const share = (index, number) => (number > 1 ? (100 * index) / (number - 1) : 0);
    element.classList.toggle("unknown", known === null);
    element.style.backgroundImage = `url("${url}")`;
    element.style.backgroundSize = `${100 * columns}% ${100 * lines}%`;
    element.style.backgroundPosition = `${share(column, columns)}% ${share(line, lines)}%`;
  }

  // A sheet as a picture to draw from, fetched once.
  #sheet(url) {
    if (!this.#images.has(url)) {
      const image = new Image();
      image.src = url;
      this.#images.set(url, image.decode().then(() => image));
    }
    return this.#images.get(url);
  }

  // A canvas with four copies of an image, so that crops may continue at the opposite border.
  async tiled(row) {
    const { url, column, line } = this.place(this.last, row);
    const image = await this.#sheet(url);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 2 * this.side;
    const context = canvas.getContext("2d");
    for (const [x, y] of [[0, 0], [1, 0], [0, 1], [1, 1]]) {
      context.drawImage(image, column * this.side, line * this.side, this.side, this.side,
        x * this.side, y * this.side, this.side, this.side);
    }
    return canvas;
  }
}

// How images fill a width: `beside` classes next to each other, of `most` at most, `perLine` images of a class in a line,
// of a side `tile`. Of all ways the one that leaves the least room empty and comes closest to a side that is seen well.
function arrange(sheets, width, count, most) {
  const wished = width < 500 ? 64 : 104;
  let best = { beside: 1, perLine: 1, tile: sheets.fitted(Math.min(width, wished)), score: -Infinity };
  for (let perLine = 1; perLine <= Math.min(count, 40); perLine += 1) {
    for (let beside = 1; beside <= (perLine === count ? Math.min(most, 10) : 1); beside += 1) {
      const room = Math.floor((width - (beside - 1) * BETWEEN + beside * GAP) / (beside * perLine) - GAP);
      const tile = sheets.fitted(Math.min(room, 256));
      if (room < 16 || (beside > 1 && perLine * (room + GAP) - GAP < NARROWEST)) continue;
      const used = beside * (perLine * (tile + GAP) - GAP) + (beside - 1) * BETWEEN;
      const filled = count / (perLine * Math.ceil(count / perLine)); // the last line may be a short one
      const score = (used / width) * (1 + filled) / 2 - Math.abs(Math.log2(tile / wished)) / 2;
      if (score > best.score) best = { beside, perLine, tile, score };
    }
  }
  return best;
}
