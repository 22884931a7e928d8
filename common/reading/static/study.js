"use strict";
// A reader's session: a film, a call with its confidence, the next film. The server keeps all of it.

let at = null, viewer = null, said = false, shownAt = 0;

const complain = error => { byId("said").textContent = error.message; };

function enter(state) {
  at = state;
  const begins = state.called === 0 && !state.done;
  if (begins || state.done) return between(state);
  return show(state);
}

// Before a session, and after the last one.
function between({ session, sessions, aid, done, films }) {
  byId("film-view").hidden = true;
  byId("between").hidden = false;
  byId("begin").hidden = done;
  byId("between-title").textContent = done ? "All films are called. Thank you." : `Session ${session + 1} of ${sessions}`;
  byId("between-words").textContent = done ? "You can close this page." :
    `${films} films, ${aid ? "with" : "without"} what the system says. ` +
    (session ? "Begin only when the coordinator says so: some weeks lie between two sessions." : "");
  byId("begin").focus();
  return null;
}

async function show(state) {
  at = state;
  byId("between").hidden = true;
  byId("film-view").hidden = false;
  viewer = viewer || new Viewer();
  byId("place").textContent = `film ${state.position + 1} of ${state.films}`;
  byId("session").textContent = `session ${state.session + 1} of ${state.sessions}, ${state.aid ? "with" : "without"} what the system says`;
  showFacts(state.film.parts);
  said = Boolean(state.earlier);
  for (const box of document.getElementsByName("call")) box.checked = said && Number(box.value) === state.earlier.call;
  byId("confidence").value = said ? state.earlier.confidence : 50;
  byId("confidence-said").textContent = said ? byId("confidence").value : "not said yet";
  byId("said").textContent = "";
  byId("earlier").disabled = state.position === 0;
  await viewer.show(state.film);
  byId("osd").focus();
  shownAt = performance.now();
  document.body.dataset.shown = `${state.session}-${state.position}`;
  if (state.position + 1 < state.films) viewer.fetchAhead(`film/${state.session}/${state.position + 1}.png`);
}

function sure(by = 0) {
  said = true;
  byId("confidence").value = Number(byId("confidence").value) + by;
  byId("confidence-said").textContent = byId("confidence").value;
}

async function save() {
  const call = [...document.getElementsByName("call")].find(box => box.checked);
  if (!call || !said) return complain(new Error("Say yes or no, and how sure you are."));
  const seconds = (performance.now() - shownAt) / 1000;
  const body = { session: at.session, position: at.position, call: Number(call.value), confidence: Number(byId("confidence").value), seconds };
  const next = await ask("call", { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  return next.session === at.session && !next.done ? show(next) : enter(next);
}

const earlier = () => at.position && ask(`state?position=${at.position - 1}`).then(show);

function key(event) {
  const call = { p: "1", n: "0" }[event.key];
  if (call) [...document.getElementsByName("call")].find(box => box.value === call).checked = true;
  else if (event.key === ",") sure(-5);
  else if (event.key === ".") sure(5);
  else if (event.key === "Enter") save().catch(complain);
  else if (event.key === "Backspace") earlier();
  else return viewer.key(event);
  return true;
}

addEventListener("keydown", event => {
  if (byId("film-view").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("button") && event.key === "Enter") return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  if (key(event)) event.preventDefault();
});
byId("begin").addEventListener("click", () => show(at));
byId("confidence").addEventListener("input", () => sure());
byId("save").addEventListener("click", () => save().catch(complain));
byId("earlier").addEventListener("click", earlier);
ask("state").then(enter);
