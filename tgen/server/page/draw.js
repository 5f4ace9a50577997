// One step of the sampler: its candidates on their way through the filters, and the random number that drew one of them.
import { count, make, percent, piece, quoted } from "./dom.js";

const NAMES = { xtc: "XTC", mirostat: "Mirostat" }; // the others are those of their options
const named = (stage) => NAMES[stage] ?? stage.replaceAll("_", "-");

/** Show how a token was drawn; `take` is called with the candidate that is to be written instead, or null to draw again. */
export function drawStep(panel, token, place, take) {
  const { step } = token;
  const stages = shownStages(token);
  panel.replaceChildren(
    make("h3", {}, `Token ${place + 1}: `, make("b", { className: "name" }, ...piece((token.chosen ?? step).text)), ` ${percent(token.probability)}`),
    make("p", { className: "how" }, how(token, stages)),
    ...(step.uniform === null ? [] : [unitLine(step)]),
    table(token, stages, take),
    ...(take ? [make("div", { className: "buttons" },
      make("button", { type: "button", className: "again", onclick: () => take(null) }, "Draw again from here"),
      make("span", { className: "hint" }, "with another random number, and the knobs as they are now"))] : []),
  );
}

/** The steps that are on, in their order: each with its name, its value if it has one, and how many tokens it left. */
function shownStages({ step, values }) {
  const names = Object.keys(step.left);
  return names.filter((name, place) => name in values || place === 0 || step.left[name] < step.left[names[place - 1]])
    .map((name) => ({ name, value: values[name], left: step.left[name] }));
}

function how(token, stages) {
  const { step } = token;
  const words = [];
  if (step.uniform === null) words.push("At temperature 0 nothing is drawn: the token with the highest score is taken.");
  else {
    const ways = stages.filter(({ name }) => name !== "temperature").map(({ name, left }) => `${named(name)} left ${count(left)}`);
    if (stages[0]?.name === "temperature") ways.unshift(`${count(stages[0].left)} tokens could come here`);
    words.push(`${ways.join("; ")}. `);
    const number = step.uniform.toFixed(4);
    words.push(`The random number ${number} fell into the share of ${quoted(step.text)}, from ${step.low.toFixed(4)} to ${step.high.toFixed(4)}.`);
  }
  if (token.chosen) words.push(` You chose ${quoted(token.chosen.text)} instead.`);
  return words.join("");
}

/** The unit interval: the share of each candidate, in the order of ids, and a needle where the random number fell. */
function unitLine(step) {
  const last = Object.keys(step.left).at(-1);
  const shares = step.candidates.filter((one) => one.low !== null).sort((one, other) => one.low - other.low);
  const parts = shares.map((one) => {
    const share = one.after[last];
    const part = make("span", { className: one.drawn ? "share drawn" : "share", "--low": one.low, "--share": share, title: `${quoted(one.text)}: ${percent(share)}` });
    if (share > 0.06) part.append(make("span", {}, ...piece(one.text)));
    return part;
  });
  const said = `The unit interval: ${shares.map((one) => `${quoted(one.text)} ${percent(one.after[last])}`).join(", ")}. The number is ${step.uniform.toFixed(4)}.`;
  return make("div", { className: "unit", role: "img", "aria-label": said },
    make("div", { className: "line" }, ...parts),
    make("div", { className: "needle", "--at": step.uniform }, make("span", {}, step.uniform.toFixed(4))));
}

function table(token, stages, take) {
  const { step } = token;
  const penalised = step.candidates.some((one) => one.score !== one.logit);
  const most = Math.max(...step.candidates.flatMap((one) => [one.probability, ...stages.map(({ name }) => one.after[name] ?? 0)]));
  const heads = [
    make("th", { scope: "col", className: "candidate" }, "Candidate"),
    make("th", { scope: "col" }, "Model", make("small", {}, "its probability")),
    ...(penalised ? [make("th", { scope: "col", className: "change" }, "Penalty", make("small", {}, "of the logit"))] : []),
    ...stages.map(({ name, value, left }) => make("th", { scope: "col" }, `${named(name)} ${value ?? ""}`.trim(), make("small", {}, `${count(left)} left`))),
    ...(take ? [make("th", { scope: "col", className: "branch" }, make("span", { className: "hidden" }, "Branch"))] : []),
  ];
  const rows = step.candidates.map((one) => row(one, token, { stages, penalised, most, take }));
  return make("table", { className: "candidates" },
    make("caption", { className: "hidden" }, `The likeliest candidates for token ${step.number + 1}`),
    make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
}

function row(one, token, { stages, penalised, most, take }) {
  const bar = (label, share) => make("td", { "data-label": label }, make("span", { className: "bar", "--width": share / most }), make("span", { className: "number" }, percent(share)));
  const cells = [make("th", { scope: "row" }, ...piece(one.text)), bar("Model", one.probability)];
  if (penalised) {
    const change = one.score === null ? "forbidden" : one.score === one.logit ? "–" : (one.score - one.logit).toFixed(2).replace("-", "−");
    cells.push(make("td", { "data-label": "Penalty", className: "change" }, change));
  }
  for (const { name } of stages) {
    if (one.after[name] !== null) cells.push(bar(named(name), one.after[name]));
    else if (one.cut_by === name) cells.push(make("td", { "data-label": named(name), className: "cut" }, "cut"));
    else cells.push(make("td", { className: "gone" }));
  }
  const chosen = token.chosen ? token.chosen.id === one.id : one.drawn;
  if (take) {
    const button = make("button", { type: "button", className: "take", "aria-label": `Write ${quoted(one.text)} here instead`, onclick: () => take(one) }, "take");
    cells.push(make("td", { className: "branch" }, chosen ? make("span", { className: "mark" }, token.chosen ? "yours" : "drawn") : button));
  }
  return make("tr", { className: chosen ? "drawn" : one.cut_by ? "lost" : "" }, ...cells);
}
