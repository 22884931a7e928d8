"use strict";
// A reader's session: a film, a call with its confidence, the next film. The server keeps all of it.

let at = null, viewer = null, shownAt = 0;
const form = byId("call"), confidence = byId("confidence");

function enter(state) {
  at = state;
  if (state.called === 0 || state.done) between(state);
  else show(state);
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
}

async function show(state) {
  at = state;
  byId("between").hidden = true;
  byId("film-view").hidden = false;
  viewer = viewer || new Viewer();
  byId("place").textContent = `film ${state.position + 1} of ${state.films}`;
  byId("session").textContent = `session ${state.session + 1} of ${state.sessions}, ${state.aid ? "with" : "without"} what the system says`;
  showFacts(state.film.parts);
  form.reset();
  sure(null);
  if (state.earlier) {
    form.call.value = state.earlier.call;
    sure(state.earlier.confidence);
  }
  byId("said").textContent = "";
  byId("earlier").disabled = state.position === 0;
  await viewer.show(state.film, `film/${state.session}/${state.position}.png`);
  byId("osd").focus();
  shownAt = performance.now();
  document.body.dataset.shown = `${state.session}-${state.position}`;
  if (state.position + 1 < state.films) viewer.fetchAhead(`film/${state.session}/${state.position + 1}.png`);
}

// A slider always has a place; that it was put there by the reader must be said.
function sure(value) {
  confidence.value = value ?? 50;
  byId("confidence-said").textContent = value === null ? "not said yet" : confidence.value;
  confidence.setCustomValidity(value === null ? "Say how sure you are." : "");
}

async function save() {
  const seconds = (performance.now() - shownAt) / 1000;
  const said = { call: Number(form.call.value), confidence: confidence.valueAsNumber, seconds };
  const body = JSON.stringify({ session: at.session, position: at.position, ...said });
  enter(await ask("call", { method: "POST", body, headers: { "Content-Type": "application/json" } }));
}

onKeys(() => byId("film-view").hidden ? {} : {
  p: () => { form.call.value = 1; },
  n: () => { form.call.value = 0; },
  ",": () => sure(confidence.valueAsNumber - 5),
  ".": () => sure(confidence.valueAsNumber + 5),
  Enter: () => form.requestSubmit(),
  Backspace: () => at.position && ask(`state?position=${at.position - 1}`).then(show),
  ...viewer.keys,
});
form.addEventListener("submit", event => {
  event.preventDefault();
  save().catch(error => { byId("said").textContent = error.message; });
});
byId("begin").addEventListener("click", () => show(at));
confidence.addEventListener("input", () => sure(confidence.value));
ask("state").then(enter);
