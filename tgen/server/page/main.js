// The page: joins prompt, knobs, text and panels. Everything comes from this server, and goes nowhere else.
import { ask, Refused } from "./api.js";
import { Attention } from "./attention.js";
import { byId, count, harmless, later, make, quoted } from "./dom.js";
import { drawStep } from "./draw.js";
import { Knobs } from "./knobs.js";
import { showPieces } from "./pieces.js";
import { Story } from "./story.js";
import { tabs } from "./tabs.js";
import { pauses, Writing } from "./writing.js";

const ENDS = { stop: "it came to its end", length: "it reached max-new-tokens", cancelled: "it was stopped" };
const LIVELY = !matchMedia("(prefers-reduced-motion: reduce)").matches;

const knobs = new Knobs();
const story = new Story(showDraw);
const attention = new Attention(byId("attention"));
let settings, running = null, texts = [], current = null, panel = "draw";

/** Show an error of the server, or that there is none. */
function problem(error) {
  const words = error instanceof Refused ? error.message : error ? `unexpected: ${error.message}` : "";
  byId("problem").hidden = !words;
  byId("problem").textContent = words.charAt(0).toUpperCase() + words.slice(1);
  if (error && !(error instanceof Refused)) console.error(error);
}

/** The model and the prompt, as a request names them. */
function request() {
  const [model, prompt] = [settings.model, byId("prompt").value];
  const chat = settings.chat && byId("chat").checked;
  return chat ? { model, messages: [{ role: "user", content: prompt }] } : { model, prompt };
}

async function begin() {
  const { data } = await ask("/v1/models");
  byId("model").replaceChildren(...data.map(({ id }) => make("option", { value: id }, id)));
  await choose(data[0].id);
}

/** Change to another model: show its settings, and no text. */
async function choose(model) {
  settings = await ask("/settings", { model });
  knobs.show(settings.options);
  attention.forget();
  attention.kinds = settings.maps;
  byId("chat-choice").hidden = !settings.chat;
  byId("write").disabled = settings.kind === "encoder-only";
  byId("state").textContent = settings.kind === "encoder-only" ? "This model reads texts and writes none: its attention and its pieces can be shown." : "";
  [texts, current] = [[], null];
  byId("text-prompt").textContent = "";
  byId("tokens").replaceChildren();
  showBranches();
  await refresh();
}

/** Write a new text. */
async function write() {
  const [asked, values] = [knobs.asked(), knobs.values()];
  const answers = settings.kind === "encoder-decoder" || "messages" in request();
  await run(new Writing({ request: request(), shown: byId("prompt").value, asked, values, answers }));
}

/** Write a text that equals the current one up to a place, with a candidate there; null draws again there. */
async function branch(place, candidate) {
  const step = current.tokens[place].step;
  const asked = { seed: current.seed, ...knobs.asked() };
  let token = null;
  if (candidate) {
    const [{ text }] = (await ask("/pieces", { model: settings.model, prompt: [candidate.id] })).pieces;
    token = { id: candidate.id, step, values: current.tokens[place].values, text, probability: candidate.probability, chosen: candidate };
  } else asked.seed = crypto.getRandomValues(new Uint32Array(1))[0];
  await run(current.branch(place, token, { asked, values: knobs.values() }));
}

/** Ask the server to write a text, and show the text as it comes. */
async function run(writing) {
  running?.abort();
  const own = new AbortController();
  running = own;
  texts.push(writing);
  problem(null);
  byId("stop").disabled = false;
  byId("tokens").setAttribute("aria-busy", "true");
  show(writing);
  try {
    await writing.write((token, state) => {
      if (state) byId("state").textContent = state;
      if (token && current === writing) story.add(token);
      if (token && current === writing && LIVELY && story.place === null) follow(writing);
    }, pauses(() => Number(byId("pace").value)), own.signal);
  } catch (error) {
    writing.reason = "cancelled";
    if (error.name !== "AbortError") problem(error);
  }
  if (running !== own) return;
  running = null;
  byId("stop").disabled = true;
  byId("tokens").removeAttribute("aria-busy");
  story.read();
  if (!writing.tokens.length) texts = texts.filter((one) => one !== writing);
  if (current === writing) {
    showState();
    showBranches();
    await refresh();
  }
}

let following = 0;

/** Show the step of the newest token, once a frame. */
function follow(writing) {
  cancelAnimationFrame(following);
  following = requestAnimationFrame(() => {
    if (panel === "draw" && current === writing && story.place === null) drawStep(byId("draw"), writing.tokens.at(-1), writing.tokens.length - 1, null);
  });
}

/** Show another text. */
function show(writing) {
  current = writing;
  story.show(writing);
  showBranches();
  showState();
  showDraw(null);
}

function showState() {
  const { reason, seed, tokens, speed, notes } = current;
  const parts = [`${count(tokens.length)} tokens`, ENDS[reason] ?? "", speed ? `${speed.toFixed(0)} tokens/s` : "", ...notes.map(harmless)];
  byId("state").replaceChildren(reason ? parts.filter(Boolean).join(" · ") : "writing …");
  if (reason && seed !== null && "temperature" in current.values) {
    const keep = make("button", { type: "button", className: "plain", onclick: () => knobs.keepSeed(seed) }, "keep it");
    byId("state").append(` · seed ${seed} `, keep);
  }
}

function showBranches() {
  byId("branches").hidden = texts.length < 2;
  byId("branches").replaceChildren(...texts.map((writing, number) => {
    const words = writing.tokens.slice(writing.from ?? 0).map((token) => token.text).join("").trim().slice(0, 24);
    const name = `${number + 1}: ${writing.from === null ? "" : `token ${writing.from + 1} on, `}${quoted(`${words}…`)}`;
    return make("button", { type: "button", "aria-pressed": writing === current, onclick: () => { running?.abort(); show(writing); refresh(); } }, name);
  }));
}

function showDraw(place) {
  const token = place === null ? null : current.tokens[place];
  if (!token) {
    byId("draw").replaceChildren(make("p", { className: "how" }, current?.tokens.length ? "Choose a token of the text to see how it was drawn." : "Press Write. Then choose a token of the text, to see which others it was up against."));
    return;
  }
  // The answer of an encoder-decoder cannot be continued from its middle.
  const take = settings.kind === "decoder-only" ? (candidate) => branch(place, candidate).catch(problem) : null;
  drawStep(byId("draw"), token, place, take);
  if (panel === "attention") refresh();
}

/** Show the open panel again; the panel of the draw follows the selected token by itself. */
async function refresh() {
  try {
    const written = current?.ids && !running ? current.tokens.map((token) => token.id) : [];
    if (panel === "draw" && story.place === null && !running) showDraw(null);
    if (panel === "pieces") await showPieces(byId("pieces"), request(), written);
    if (panel === "attention" && !running) await showAttention(written);
  } catch (error) {
    problem(error);
  }
}

async function showAttention(written) {
  const base = current?.ids ? { model: settings.model, prompt: current.ids } : request();
  const place = story.place === null ? null : story.place + 1;
  if (settings.kind === "encoder-decoder") await attention.show({ ...base, answer: written }, place);
  else if (current?.ids) await attention.show({ ...base, prompt: [...current.ids, ...written] }, place && current.ids.length + place - 1);
  else await attention.show(base, null);
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  write().catch(problem);
});
byId("stop").addEventListener("click", () => running?.abort());
byId("model").addEventListener("change", () => { running?.abort(); choose(byId("model").value).catch(problem); });
byId("prompt").addEventListener("input", later(250, () => { if (settings && panel === "pieces") refresh(); }));
byId("chat").addEventListener("change", refresh);
byId("key").addEventListener("cancel", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("write").disabled) write().catch(problem);
});
for (const swatch of document.querySelectorAll("[data-surprise]")) swatch.style.setProperty("--surprise", swatch.dataset.surprise);
tabs(byId("tabs"), (shown) => { panel = shown; refresh(); });
begin().catch(problem);
