// Shared by all pages: elements made of text alone, the theme, copying.
"use strict";

// An element; children are elements or text, which is never read as markup.
function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const percent = (fraction, digits = 1) => `${(100 * fraction).toFixed(digits)} %`;
const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : /s$/.test(what) ? "es" : "s"}`;

function remembered() {
  try {
    return localStorage.getItem("fadrm-theme");
  } catch {
    return null; // a page in a frame, or from disk, may have no storage
  }
}

// The button names the theme that it leads to.
function setTheme(theme) {
  const other = theme === "dark" ? "Light" : "Dark";
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = other;
  document.getElementById("theme").setAttribute("aria-label", `${other} theme`);
}

function prepareTheme() {
  const wished = matchMedia("(prefers-color-scheme: dark)");
  setTheme(remembered() ?? (wished.matches ? "dark" : "light"));
  wished.addEventListener("change", () => remembered() ?? setTheme(wished.matches ? "dark" : "light"));
  document.getElementById("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    setTheme(theme);
    try {
      localStorage.setItem("fadrm-theme", theme);
    } catch {
      // the choice lasts as long as the page
    }
  });
}

async function copy(block) {
  try {
    await navigator.clipboard.writeText(block.textContent);
  } catch {
    // Not allowed here: select the text instead.
    getSelection().selectAllChildren(block);
    document.execCommand("copy");
  }
}

// A text, and the link that it is if it leads somewhere; addresses are checked where they come from.
const linked = (text, address) => (address ? node("a", { href: address }, text) : node("span", {}, text));

// A square in the colour of what it explains.
const keyOf = (kind) => node("span", { class: `key ${kind}`, "aria-hidden": "true" });

// The name of a class, and its id where that is another.
function classTitle(name, identity, attributes = {}) {
  const title = node("h3", { ...attributes, title: name }, node("span", { class: "name" }, name));
  if (identity !== name) title.append(" ", node("small", {}, identity));
  return title;
}

// Room for `beside` classes next to each other, and for their titles.
function reserveTitles(area, beside, haveIds) {
  area.style.setProperty("--beside", beside);
  area.style.setProperty("--head", beside > 1 && haveIds ? "2.4rem" : "1.2rem");
  area.classList.toggle("beside", beside > 1);
}

// A block of code with a button that copies it.
function recipe({ title, language, code }) {
  const block = node("code", {}, code);
  const button = node("button", { type: "button", "aria-label": `Copy: ${title}` }, "Copy");
  const told = node("span", { role: "status", class: "unseen" });
  button.addEventListener("click", async () => {
    await copy(block);
    button.textContent = told.textContent = "Copied";
    setTimeout(() => {
      button.textContent = "Copy";
      told.textContent = "";
    }, 2000);
  });
  const head = node("div", { class: "line" }, node("h3", {}, title), node("div", {}, button, told));
  return node("article", { class: "recipe" }, head, node("pre", { "data-language": language }, block));
}

// Show only the classes whose name or id contains the search text, or the selected class.
function prepareFilter(ids, names, sections, changed) {
  const search = document.getElementById("search");
  const choice = document.getElementById("class");
  choice.append(node("option", { value: "" }, "All"));
  names.forEach((name, index) => choice.append(node("option", { value: String(index) }, name)));
  const words = names.map((name, index) => `${name}\n${ids[index]}`.toLowerCase());
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    sections.forEach((section, index) => {
      const fits = choice.value ? Number(choice.value) === index : words[index].includes(wanted);
      section.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    document.getElementById("found").textContent = shown === sections.length
      ? counted(shown, "class") : `${shown.toLocaleString("en")} of ${counted(sections.length, "class")}`;
    changed();
  };
  search.addEventListener("input", () => {
    choice.value = "";
    filter();
  });
  choice.addEventListener("change", () => {
    search.value = "";
    filter();
  });
  search.form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      search.focus();
    }
  });
  filter();
}

// Fill sections as they come near the screen, and empty them when they are far away again.
function fillLazily(sections, fill, empty) {
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) (entry.isIntersecting ? fill : empty)(entry.target);
  }, { rootMargin: "800px 0px" });
  sections.forEach((section) => watch.observe(section));
}
