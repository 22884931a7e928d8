"use strict";
// A film in the viewer: zoom, pan, window and level, outlines, the map, a bar of millimetres.

const byId = id => document.getElementById(id);

function made(tag, words = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = words;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// What the server tells at an address, or an error in its words.
async function ask(address, options) {
  const response = await fetch(address, options);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

// Blocks of facts about a film, each under its title.
function showFacts(parts) {
  byId("facts").replaceChildren(...Object.entries(parts).flatMap(([title, facts]) => {
    const list = made("dl");
    for (const [name, words] of Object.entries(facts)) list.append(made("dt", name), made("dd", words));
    return [made("h2", title), list];
  }));
}

// Obeys keys, and buttons that stand for one, by what `actions` gives for them at that moment; but not keys that
// the element in focus needs itself.
function onKeys(actions) {
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const own = { "select": /./, "a, button": /Enter/, "input[type=range]": /Arrow|Home|End|Page/ };
    if (Object.entries(own).some(([tags, keys]) => event.target.matches(tags) && keys.test(event.key))) return;
    const action = actions()[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  for (const button of document.querySelectorAll("[data-key]"))
    button.addEventListener("click", () => actions()[button.dataset.key]());
}

class Viewer {
  constructor() {
    this.ahead = [];
    this.on = {}; // whether a layer is switched on, by its name; an outline is unless it was switched off
    this.osd = OpenSeadragon({
      element: byId("osd"), drawer: "canvas", showNavigationControl: false, animationTime: 0.2,
      immediateRender: true, maxZoomPixelRatio: 8, visibilityRatio: 0.4, minZoomImageRatio: 0.6,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    this.osd.innerTracker.keyHandler = null; // the keys are ours
    this.osd.innerTracker.keyDownHandler = null;
    this.osd.addHandler("update-viewport", () => this.drawBar());
    byId("grey").addEventListener("input", () => this.grey());
    byId("grey").addEventListener("reset", () => setTimeout(() => {
      this.grey();
      this.osd.viewport.goHome(true);
    }));
    this.keys = {
      w: () => this.move("width", -12), W: () => this.move("width", 12),
      l: () => this.move("level", -8), L: () => this.move("level", 8),
      i: () => byId("invert").click(), 0: () => byId("grey").reset(),
      "+": () => this.osd.viewport.zoomBy(1.3), "=": () => this.osd.viewport.zoomBy(1.3),
      "-": () => this.osd.viewport.zoomBy(1 / 1.3),
    };
    for (let i = 0; i < 9; i++) this.keys[i + 1] = () => byId("layers").querySelectorAll("input")[i]?.click();
  }

  // Shows a film as the server tells it; resolves when its picture is there.
  async show(film, picture, maps) {
    this.film = film;
    for (const words of document.querySelectorAll(".plain")) words.hidden = !film.plain; // of a film alone
    await new Promise(done => {
      this.osd.addOnceHandler("open", done);
      this.osd.open({ type: "image", url: picture, buildPyramid: false });
    });
    if (this.film !== film) return; // the reader went on meanwhile
    const item = this.osd.world.getItemAt(0);
    if (!item.getFullyLoaded()) await new Promise(done => item.addOnceHandler("fully-loaded-change", done));
    if (this.film !== film) return;
    this.drawLayers(maps);
    this.grey();
  }

  // Fetches a picture that is soon to be shown. A page takes one that it holds from its memory: nothing of a
  // patient goes to the browser's cache on the disk.
  fetchAhead(picture) {
    const image = Object.assign(new Image(), { src: picture });
    image.decode().catch(() => {}); // ready to be drawn at once; a fault is told when it is to be shown
    this.ahead = [...this.ahead.slice(-7), image];
  }

  // What lies over the film: nothing in it but numbers and the systems' names.
  drawLayers(mapsAt) {
    const { size: [width, height], outlines, maps } = this.film;
    const paths = Object.entries(outlines).map(([name, d]) => `<path d="${d}" class="${name}" data-layer="${name}"/>`);
    const pictures = maps.map(name => `<img src="${mapsAt}/${name}.png" alt="" data-layer="${name} map">`);
    const over = made("div", "", { class: "over" });
    const box = `viewBox="0 0 ${width} ${height}" preserveAspectRatio="none"`;
    over.innerHTML = `<svg ${box}>${paths.join("")}</svg>` + pictures.join("");
    this.osd.addOverlay(over, new OpenSeadragon.Rect(0, 0, 1, height / width));
    const layers = [...over.querySelectorAll("[data-layer]")];
    byId("layers").replaceChildren(...layers.map((layer, i) => this.layerSwitch(layer, i + 1)));
    byId("layers").parentElement.hidden = !layers.length;
    byId("scale").hidden = !maps.length;
  }

  layerSwitch(layer, key) {
    const name = layer.dataset.layer, there = layer.getAttribute("d") !== "";
    const box = made("input", "", { type: "checkbox" });
    const obey = () => layer.toggleAttribute("hidden", !box.checked);
    box.checked = there && (this.on[name] ?? !name.endsWith("map"));
    box.disabled = !there;
    box.addEventListener("change", () => { this.on[name] = box.checked; obey(); });
    obey();
    const label = made("label", "", { class: there ? "" : "absent" });
    label.innerHTML = `<svg class="line"><path d="M0 6H24" class="${name}"/></svg>`;
    label.prepend(box);
    label.append(` ${name}${there ? "" : ": none"} `, made("kbd", key));
    return label;
  }

  // Grey level g of 0 to 255 is shown as (g - low) / (high - low), from black to white.
  grey() {
    const [width, level] = [byId("width").valueAsNumber, byId("level").valueAsNumber];
    const slope = (byId("invert").checked ? -1 : 1) * 255 / width;
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", 0.5 - slope * level / 255);
    }
    byId("width-said").textContent = width;
    byId("level-said").textContent = Math.round(level);
  }

  move(id, by) {
    byId(id).valueAsNumber += by;
    this.grey();
  }

  drawBar() {
    const bar = byId("bar");
    bar.hidden = !this.film?.mm;
    if (bar.hidden) return;
    const container = this.osd.viewport.getContainerSize().x;
    const a_mm = container * this.osd.viewport.getZoom(true) / this.film.mm[0]; // pixels of the screen
    const length = [200, 100, 50, 20, 10, 5, 2].find(mm => mm * a_mm < container / 3) || 1;
    bar.style.width = `${length * a_mm}px`;
    bar.textContent = `${length} mm`;
  }
}
