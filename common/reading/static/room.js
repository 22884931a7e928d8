"use strict";
// A room of films: the grid, which holds only the tiles that are seen, and the film that is opened from it.

const TILE = 172, HIGH = 208; // pixels of a tile with its words
const state = { rows: [], tiles: [], at: 0, marked: new Set(), films: new Map() };
let viewer = null;

function query() {
  const found = new URLSearchParams();
  for (const [name, value] of new FormData(byId("query"))) if (value) found.set(name, value);
  for (const input of thresholds()) if (stays(input)) found.delete(input.name);
  return found;
}

const thresholds = () => byId("query").querySelectorAll("input[type=range]");
const stays = input => Number(input.value) === Number(input.defaultValue); // at what was chosen

async function refresh() {
  const asked = query().toString();
  const found = await ask(`films?${asked}`);
  if (asked !== query().toString()) return; // asked anew meanwhile
  Object.assign(state, { rows: found.rows, tiles: found.tiles, at: 0 });
  byId("grid").scrollTop = 0;
  counted(found);
  summarised(found.summary);
  for (const input of thresholds())
    input.closest("label").querySelector("output").textContent =
      stays(input) ? `${Number(input.dataset.chosen).toFixed(6)} (chosen)` : input.value;
  if (thresholds().length)
    for (const figure of document.querySelectorAll("aside figure img")) figure.src = `${figure.src.split("?")[0]}?${asked}`;
  exported();
  draw();
}

function counted({ rows, counts, summary }) {
  byId("counts").textContent = [`${rows.length} films`, ...summary.said].join(" · ");
  for (const select of byId("query").querySelectorAll("select")) {
    const numbers = counts[select.name], known = [...select.options].map(option => option.value);
    for (const value of Object.keys(numbers || {})) // a moved threshold brings new ones
      if (!known.includes(value)) select.append(made("option", value, { value }));
    for (const option of select.options)
      if (numbers && option.value) option.textContent = `${option.value} (${numbers[option.value] || 0})`;
  }
}

function summarised({ columns, lines, caption }) {
  const table = byId("summary");
  table.caption.textContent = caption;
  const cells = (tag, words) => {
    const row = made("tr");
    row.append(...words.map((each, i) => made(i && tag === "td" ? "td" : "th", each)));
    return row;
  };
  table.tHead.replaceChildren(cells("th", columns));
  table.tBodies[0].replaceChildren(...lines.map(line => cells("td", line)));
}

function exported() {
  const found = query();
  if (state.marked.size) found.set("marked", [...state.marked].join(","));
  for (const [id, file] of [["csv", "films.csv"], ["zip", "pictures.zip"]]) byId(id).href = `${file}?${found}`;
}

// --- the grid --------------------------------------------------------------------------------------

const across = () => Math.max(1, Math.floor(byId("tiles").clientWidth / TILE));

function draw() {
  const grid = byId("grid"), tiles = byId("tiles"), columns = across();
  tiles.style.height = `${Math.ceil(state.rows.length / columns) * HIGH}px`;
  const first = Math.max(0, Math.floor(grid.scrollTop / HIGH) - 1) * columns;
  const last = Math.min(state.rows.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / HIGH) + 1) * columns);
  const kept = new Map([...tiles.children].map(tile => [tile.id, tile]));
  const wanted = [];
  for (let i = first; i < last; i++) {
    const tile = kept.get(`tile-${state.rows[i]}`) || newTile(i);
    tile.style.transform = `translate(${(i % columns) * TILE}px, ${Math.floor(i / columns) * HIGH}px)`;
    tile.classList.toggle("at", i === state.at);
    tile.classList.toggle("marked", state.marked.has(state.rows[i]));
    tile.setAttribute("aria-selected", i === state.at);
    wanted.push(tile);
  }
  tiles.replaceChildren(...wanted);
}

function newTile(i) {
  const row = state.rows[i], [name, words] = state.tiles[i];
  const tile = made("figure", "", { id: `tile-${row}`, class: "tile", role: "option" });
  const box = made("div", "", { class: "box" });
  box.append(made("img", "", { src: `thumbnail/${row}.jpg`, alt: name }));
  tile.append(box, made("figcaption", words));
  tile.addEventListener("click", () => { state.at = state.rows.indexOf(row); open(); });
  return tile;
}

function moveTo(i) {
  state.at = Math.min(Math.max(i, 0), state.rows.length - 1);
  const grid = byId("grid"), top = Math.floor(state.at / across()) * HIGH;
  if (top < grid.scrollTop) grid.scrollTop = top;
  if (top + HIGH > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + HIGH - grid.clientHeight;
  draw();
}

function mark() {
  const row = state.rows[state.at];
  if (row === undefined) return;
  if (!state.marked.delete(row)) state.marked.add(row);
  byId("marked").checked = state.marked.has(row);
  exported();
  draw();
}

// --- a film ----------------------------------------------------------------------------------------

function film(i) {
  const row = state.rows[i];
  if (!state.films.has(row)) {
    state.films.set(row, ask(`film/${row}`).then(found => ({ ...found, maps_at: `map/${row}`, scale_at: "scale.png" })));
    if (state.films.size > 64) state.films.delete(state.films.keys().next().value);
  }
  return state.films.get(row);
}

async function open() {
  const i = state.at;
  if (state.rows[i] === undefined) return;
  byId("grid-view").hidden = true;
  byId("film-view").hidden = false;
  viewer = viewer || new Viewer();
  byId("osd").focus();
  const found = await film(i);
  if (i !== state.at) return;
  told(found, i);
  await viewer.show(found);
  document.body.dataset.shown = found.case;
  for (const near of [i + 1, i - 1, i + 2])
    if (state.rows[near] !== undefined) film(near).then(each => viewer.fetchAhead(each.picture), () => {});
}

function told(found, i) {
  byId("case").textContent = found.case;
  byId("place").textContent = `film ${i + 1} of ${state.rows.length} in this list`;
  byId("marked").checked = state.marked.has(state.rows[i]);
  byId("grey-note").hidden = !found.plain;
  showFacts(found.parts);
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
  draw();
  moveTo(state.at);
  byId("grid").focus();
}

// --- keys ------------------------------------------------------------------------------------------

function keyInGrid(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across(), ArrowDown: across() }[event.key];
  if (by) moveTo(state.at + by);
  else if (event.key === "Home") moveTo(0);
  else if (event.key === "End") moveTo(state.rows.length - 1);
  else if (event.key === "Enter") open();
  else if (event.key === "x") mark();
  else return false;
  return true;
}

function keyInFilm(event) {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "Escape") close();
  else if (event.key === "x") mark();
  else return viewer.key(event);
  return true;
}

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inForm = event.target.matches("select, input[type=range]") && event.key !== "Escape";
  const inGrid = byId("film-view").hidden;
  if (inForm || (inGrid && event.target.matches("a, button"))) return;
  if (inGrid ? keyInGrid(event) : keyInFilm(event)) event.preventDefault();
});

byId("query").addEventListener("input", refresh);
byId("query").addEventListener("submit", event => event.preventDefault());
byId("query").addEventListener("reset", () => { state.marked.clear(); setTimeout(refresh); });
byId("grid").addEventListener("scroll", draw, { passive: true });
byId("back").addEventListener("click", close);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("marked").addEventListener("change", mark);
addEventListener("resize", draw);
refresh().then(() => byId("grid").focus());
