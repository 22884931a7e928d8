"use strict";
// A room of films: the grid, which holds only the tiles that are seen, and the film that is opened from it.

const TILE = 172; // pixels from one tile to the next
const form = byId("query"), grid = byId("grid"), tiles = byId("tiles");
const state = { rows: [], tiles: [], at: 0, high: 0, marked: new Set() };
let viewer = null, films = new Map(); // what is told of the film that is shown, and of those near it

const query = () => new URLSearchParams([...new FormData(form)].filter(([, value]) => value));

async function refresh() {
  const asked = query().toString();
  const found = await ask(`films?${asked}`);
  if (asked !== query().toString()) return; // asked anew meanwhile
  const words = found.tiles[0]?.[1].length ?? 0; // about as many on each tile
  Object.assign(state, { rows: found.rows, tiles: found.tiles, at: 0, high: 172 + 17 * Math.ceil(words / 20) });
  grid.scrollTop = 0;
  byId("counts").textContent = [`${found.rows.length} films`, ...found.said].join(" · ");
  for (const [name, numbers] of Object.entries(found.counts)) count(form.elements[name], numbers);
  summarise(found);
  for (const slider of form.querySelectorAll("input")) slider.previousElementSibling.textContent = slider.value;
  for (const figure of document.querySelectorAll("[data-moves]")) figure.src = `${figure.src.split("?")[0]}?${asked}`;
  link();
  draw();
}

// The choices of a facet, and beside each of them how many films it would leave.
function count(select, numbers) {
  const chosen = select.value;
  if (chosen && !(chosen in numbers)) numbers[chosen] = 0; // a moved threshold takes choices away
  const choices = Object.entries(numbers).map(([value, films]) => new Option(`${value} (${films})`, value));
  select.replaceChildren(new Option("all", ""), ...choices);
  select.value = chosen;
}

function summarise({ lines, caption }) {
  byId("summary").replaceChildren(made("caption", caption), ...lines.map((line, i) => {
    const row = made("tr");
    row.append(...line.map((words, j) => made(i && j ? "td" : "th", words)));
    return row;
  }));
}

function link() {
  const found = query();
  if (state.marked.size) found.set("marked", [...state.marked]);
  for (const file of document.querySelectorAll("a[download]")) file.search = found;
}

// --- the grid --------------------------------------------------------------------------------------

const across = () => Math.max(1, Math.floor(tiles.clientWidth / TILE));

function draw() {
  const columns = across();
  grid.setAttribute("aria-activedescendant", `tile-${state.rows[state.at]}`);
  tiles.style.height = `${Math.ceil(state.rows.length / columns) * state.high}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / state.high) - 1) * columns;
  const last = (Math.ceil((grid.scrollTop + grid.clientHeight) / state.high) + 1) * columns;
  tiles.replaceChildren(...state.rows.slice(first, last).map((row, i) => {
    const tile = byId(`tile-${row}`) || newTile(row, state.tiles[first + i]), place = first + i;
    tile.style.transform = `translate(${(place % columns) * TILE}px, ${Math.floor(place / columns) * state.high}px)`;
    tile.classList.toggle("marked", state.marked.has(row));
    tile.setAttribute("aria-selected", place === state.at);
    return tile;
  }));
}

function newTile(row, [name, words]) {
  const tile = made("figure", "", { id: `tile-${row}`, class: "tile", role: "option" });
  tile.append(made("img", "", { src: `thumbnail/${row}.jpg`, alt: name }), made("figcaption", words));
  tile.addEventListener("click", () => { state.at = state.rows.indexOf(row); open(); });
  return tile;
}

function moveTo(i) {
  state.at = Math.min(Math.max(i, 0), state.rows.length - 1);
  const top = Math.floor(state.at / across()) * state.high;
  grid.scrollTop = Math.min(top, Math.max(grid.scrollTop, top + state.high - grid.clientHeight));
  draw();
}

function mark() {
  const row = state.rows[state.at];
  if (row === undefined) return;
  if (!state.marked.delete(row)) state.marked.add(row);
  byId("marked").checked = state.marked.has(row);
  link();
  draw();
}

// --- a film ----------------------------------------------------------------------------------------

const film = row => films.get(row) ?? ask(`film/${row}`);

async function open() {
  const i = state.at, row = state.rows[i];
  if (row === undefined) return;
  byId("grid-view").hidden = true;
  byId("film-view").hidden = false;
  viewer = viewer || new Viewer();
  byId("osd").focus();
  const found = await film(row);
  if (i !== state.at) return;
  byId("case").textContent = found.case;
  byId("place").textContent = `film ${i + 1} of ${state.rows.length} in this list`;
  byId("marked").checked = state.marked.has(row);
  showFacts(found.parts);
  await viewer.show(found, `film/${row}.png`, `map/${row}`);
  document.body.dataset.shown = found.case;
  const near = [i, i + 1, i - 1].map(place => state.rows[place]).filter(each => each !== undefined);
  films = new Map(near.map(each => [each, film(each)]));
  for (const each of near) viewer.fetchAhead(`film/${each}.png`);
}

function step(by) {
  if (state.rows[state.at + by] === undefined) return;
  moveTo(state.at + by);
  open();
}

function close() {
  byId("film-view").hidden = true;
  byId("grid-view").hidden = false;
  delete document.body.dataset.shown;
  moveTo(state.at);
  grid.focus();
}

const inGrid = {
  ArrowLeft: () => moveTo(state.at - 1), ArrowRight: () => moveTo(state.at + 1),
  ArrowUp: () => moveTo(state.at - across()), ArrowDown: () => moveTo(state.at + across()),
  Home: () => moveTo(0), End: () => moveTo(state.rows.length - 1), Enter: open, x: mark,
};
const inFilm = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Escape: close, x: mark };
onKeys(() => byId("film-view").hidden ? inGrid : { ...viewer.keys, ...inFilm });

form.addEventListener("input", refresh);
form.addEventListener("reset", () => { state.marked.clear(); setTimeout(refresh); });
grid.addEventListener("scroll", draw, { passive: true });
byId("marked").addEventListener("change", mark);
addEventListener("resize", draw);
refresh().then(() => grid.focus());
