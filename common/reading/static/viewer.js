"use strict";
// A film in the viewer: zoom, pan, window and level, outlines, the map, a bar of millimetres.

const COLOURS = { truth: "#28dc78", eff: "#56b4e9", vit: "#ff8c42" }; // as room.py has them
const DASHES = { truth: "", eff: "", vit: "9 5" }; // in grey print, too, they are told apart
const SVG = "http://www.w3.org/2000/svg";

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
    for (const [name, words] of facts) list.append(made("dt", name), made("dd", words));
    return [made("h2", title), list];
  }));
}

// Pictures in memory only: nothing of a patient goes to the browser's cache on the disk.
class Pictures {
  constructor(most) { this.most = most; this.kept = new Map(); }

  get(address) {
    const found = this.kept.get(address) || fetch(address).then(async response => {
      if (!response.ok) throw new Error(await response.text());
      const url = URL.createObjectURL(await response.blob());
      const picture = new Image();
      picture.src = url;
      await picture.decode(); // ready to be drawn at once
      return { url, picture };
    });
    this.kept.delete(address);
    this.kept.set(address, found); // the newest last
    found.catch(() => this.kept.delete(address));
    while (this.kept.size > this.most) {
      const [oldest, gone] = this.kept.entries().next().value;
      this.kept.delete(oldest);
      gone.then(each => URL.revokeObjectURL(each.url), () => {});
    }
    return found;
  }
}

class Viewer {
  constructor() {
    this.pictures = new Pictures(8);
    this.on = { truth: true, eff: true, vit: true };
    this.osd = OpenSeadragon({
      element: byId("osd"), drawer: "canvas", showNavigationControl: false, animationTime: 0.2,
      immediateRender: true, maxZoomPixelRatio: 8, visibilityRatio: 0.4, minZoomImageRatio: 0.6,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    this.osd.innerTracker.keyHandler = null; // the keys are ours
    this.osd.innerTracker.keyDownHandler = null;
    this.osd.addHandler("update-viewport", () => this.drawBar());
    for (const id of ["width", "level", "invert"]) byId(id).addEventListener("input", () => this.grey());
    byId("reset").addEventListener("click", () => this.reset());
  }

  // Shows a film as the server tells it; resolves when its picture is there.
  async show(film) {
    this.film = film;
    for (const side of document.querySelectorAll(".side")) side.hidden = !film.plain; // a finding names its own
    const { url } = await this.pictures.get(film.picture);
    if (this.film !== film) return; // the reader went on meanwhile
    await new Promise(done => {
      this.osd.addOnceHandler("open", done);
      this.osd.open({ type: "image", url, buildPyramid: false });
    });
    if (this.film !== film) return;
    const picture = this.osd.world.getItemAt(0);
    if (!picture.getFullyLoaded()) await new Promise(done => picture.addOnceHandler("fully-loaded-change", done));
    if (this.film !== film) return;
    this.layers();
    this.grey();
  }

  fetchAhead(picture) { this.pictures.get(picture).catch(() => {}); }

  layers() {
    const { size: [width, height], outlines, maps } = this.film;
    const over = made("div", "", { class: "over" });
    for (const system of maps) {
      const layer = made("img", "", { src: `${this.film.maps_at}/${system}.png`, alt: "", "data-layer": `${system} map` });
      over.append(layer);
    }
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const [name, path] of Object.entries(outlines)) {
      if (!path) continue;
      const line = document.createElementNS(SVG, "path");
      const set = { d: path, stroke: COLOURS[name], "stroke-width": name === "truth" ? 3.5 : 2,
        "stroke-dasharray": DASHES[name], fill: "none", "vector-effect": "non-scaling-stroke", "data-layer": name };
      for (const [key, value] of Object.entries(set)) line.setAttribute(key, value);
      svg.append(line);
    }
    over.append(svg);
    this.over = over;
    this.osd.addOverlay(over, new OpenSeadragon.Rect(0, 0, 1, height / width));
    this.listLayers();
  }

  listLayers() {
    const { outlines, maps } = this.film;
    const names = [...Object.entries(outlines).map(([name, path]) => [name, Boolean(path)]),
      ...maps.map(system => [`${system} map`, true])];
    this.names = names.map(([name]) => name);
    byId("layers").parentElement.hidden = !names.length;
    byId("layers").replaceChildren(...names.map(([name, there], i) => {
      const label = made("label", "", { class: there ? "" : "absent" });
      const box = made("input", "", { type: "checkbox", "data-layer": name });
      box.checked = there && Boolean(this.on[name]);
      box.disabled = !there;
      box.addEventListener("change", () => this.turn(name, box.checked));
      const line = made("i", "", { class: `line ${name.replace(" ", "-")}` });
      label.append(box, line, ` ${name}${there ? "" : ": none"} `, made("kbd", String(i + 1)));
      return label;
    }));
    if (maps.length) {
      const scale = made("span", "0 ", { class: "scale" });
      scale.append(made("img", "", { src: this.film.scale_at, alt: "scale of the map" }), " 1: value of the map");
      byId("layers").append(scale);
    }
    for (const name of this.names) this.turn(name, Boolean(this.on[name]), false);
  }

  turn(name, on, remember = true) {
    if (remember) this.on[name] = on;
    const layer = this.over.querySelector(`[data-layer="${name}"]`);
    if (layer) layer.style.display = on ? "" : "none";
    const box = byId("layers").querySelector(`[data-layer="${name}"]`);
    if (box) box.checked = on && Boolean(layer);
  }

  // Grey level g of 0 to 255 is shown as (g - low) / (high - low), from black to white.
  grey() {
    const [width, level] = [Number(byId("width").value), Number(byId("level").value)];
    const inverted = byId("invert").checked ? -1 : 1;
    const slope = inverted * 255 / width;
    const intercept = 0.5 - slope * level / 255;
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    byId("width-said").textContent = width;
    byId("level-said").textContent = Math.round(level);
  }

  reset() {
    byId("width").value = 255;
    byId("level").value = 127.5;
    byId("invert").checked = false;
    this.grey();
    this.osd.viewport.goHome(true);
  }

  drawBar() {
    const bar = byId("bar");
    bar.hidden = !this.film || !this.film.mm;
    if (bar.hidden) return;
    const container = this.osd.viewport.getContainerSize().x;
    const a_mm = container * this.osd.viewport.getZoom(true) / this.film.mm[0]; // pixels of the screen
    const length = [200, 100, 50, 20, 10, 5, 2].find(mm => mm * a_mm < container / 3) || 1;
    bar.style.width = `${length * a_mm}px`;
    bar.textContent = `${length} mm`;
  }

  // Whether a key was the viewer's.
  key(event) {
    const moved = (id, by) => { byId(id).value = Number(byId(id).value) + by; this.grey(); };
    const layer = this.names && this.names[Number(event.key) - 1];
    if (layer) this.turn(layer, !this.on[layer]);
    else if (event.key === "w") moved("width", -12);
    else if (event.key === "W") moved("width", 12);
    else if (event.key === "l") moved("level", -8);
    else if (event.key === "L") moved("level", 8);
    else if (event.key === "i") { byId("invert").checked = !byId("invert").checked; this.grey(); }
    else if (event.key === "0") this.reset();
    else if (event.key === "+" || event.key === "=") this.osd.viewport.zoomBy(1.3);
    else if (event.key === "-") this.osd.viewport.zoomBy(1 / 1.3);
    else return false;
    return true;
  }
}
