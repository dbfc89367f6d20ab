// The chat: posts to the page what it would post to the gateway, and shows what comes back as text, never as HTML.

const root = document.getElementById("chat");
const KEPT = "nacre.chat";
const by = (id) => document.getElementById(id);

// --- drawing: every text goes in by textContent

function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.filter((one) => one !== null));
  return made;
}

function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

function number(value) {
  if (value === null || value === undefined) return words.unknown;
  return Number(value).toLocaleString("en-US", Number.isInteger(value) ? {} : { maximumSignificantDigits: 4 });
}

function seconds(value) {
  if (value === null || value === undefined) return words.unknown;
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toPrecision(3)} s`;
}

/** Paragraphs and fenced code of a text, as elements that hold nothing but text. */
function prose(text) {
  const parts = text.split(/^```([^\n`]*)\n?/m);
  const shown = [];
  for (let place = 0; place < parts.length; place += 2) {
    const isCode = (place / 2) % 2 === 1;
    const body = parts[place].replace(/^\n+|\n+$/g, "");
    if (isCode) shown.push(make("pre", { class: "code-block", tabindex: "0" }, make("code", { text: body })));
    else if (body) shown.push(make("p", { class: "said", text: body }));
  }
  return shown;
}

// --- what is kept: in this tab only

const words = root ? JSON.parse(root.dataset.words) : {};
const wire = root ? await import(root.dataset.wire) : null; // by its whole address, which changes with its bytes
let turns = [];
let under_way = null;

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) || {};
  } catch {
    return {};
  }
}

function keep() {
  const plain = { turns, system: by("system").value, temperature: by("temperature").value, most: by("most").value, model: by("model").value, beside: by("beside").value };
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(plain));
  } catch {
    by("status").textContent = words.too_long;
  }
}

// --- requests

function choice(id) {
  const option = by(id).selectedOptions[0];
  if (!option || !option.value) return null;
  const { route, streams, single, local, about, ref } = option.dataset;
  return { name: option.value, route, streams: streams === "1", single: single === "1", local: local === "1", about, ref };
}

/** The body that OpenAI's API, and ours beside it, have for this question. */
function body_of(model, question, column, place) {
  if (model.route === "classify") return { model: model.name, input: question, top_k: 5 };
  if (model.route === "search") return { model: model.name, query: question, limit: 5 };
  const body = { model: model.name };
  if (model.streams) Object.assign(body, { stream: true, stream_options: { include_usage: true } });
  if (!model.single) {
    if (by("temperature").value !== "") body.temperature = Number(by("temperature").value);
    if (by("most").value !== "") body.max_tokens = Number(by("most").value);
  }
  if (model.route === "completions") return { ...body, prompt: question };
  const messages = model.single ? [] : earlier(column, place);
  return { ...body, messages: [...messages, { role: "user", content: question }] };
}

/** The instruction and what was said so far in one column. */
function earlier(column, place) {
  const messages = by("system").value.trim() ? [{ role: "system", content: by("system").value }] : [];
  for (const turn of turns.slice(0, place)) {
    const answer = turn.answers[column];
    if (answer && answer.text && !answer.error) {
      messages.push({ role: "user", content: turn.question }, { role: "assistant", content: answer.text });
    }
  }
  return messages;
}

// --- an answer on the page

function draw_answer(answer, place, column) {
  const is_last = place === turns.length - 1;
  const box = make("article", { class: "answer", "aria-busy": String(Boolean(answer.waiting)) });
  box.append(make("h3", { text: answer.model }));
  if (answer.waiting && !answer.text) box.append(make("p", { class: "muted", text: answer.slow ? words.opening : words.asking }));
  if (answer.text) box.append(...prose(answer.text));
  if (answer.scores) box.append(draw_label(answer));
  if (answer.hits) box.append(draw_quotes(answer.hits, answer.hits.length ? words.hits : words.no_hits, true));
  if (answer.citations && answer.citations.length) box.append(draw_quotes(answer.citations, words.citations, false));
  if (answer.stopped) box.append(make("p", { class: "muted", text: words.stopped }));
  if (answer.cut) box.append(make("p", { class: "muted", text: words.cut }));
  if (answer.error) box.append(...draw_error(answer.error));
  if (!answer.waiting) {
    box.append(draw_account(answer));
    const buttons = make("p", { class: "answer-buttons" });
    if (answer.text) buttons.append(make("button", { type: "button", class: "plain", text: words.copy, onclick: (event) => copy(answer.text, event.target) }));
    if (is_last && !under_way) buttons.append(make("button", { type: "button", class: "plain", text: words.retry, onclick: () => retry(place, column) }));
    box.append(buttons);
  }
  return box;
}

function draw_label(answer) {
  const list = make("ul", { class: "scores" });
  for (const { label, score } of answer.scores) {
    const shown = `${(score * 100).toFixed(1)} %`;
    const bar = score >= 0 && score <= 1 ? make("meter", { min: "0", max: "1", value: score, "aria-label": `${label}: ${shown}` }) : null;
    list.append(make("li", {}, make("span", { text: label, dir: "auto" }), make("span", { class: "num", text: bar ? shown : number(score) }), bar));
  }
  const label = answer.label === null || answer.label === undefined;
  const head = make("p", { class: "label", dir: "auto", text: label ? fill(words.no_label, { why: answer.problem || "" }) : String(answer.label) });
  return make("div", {}, head, list);
}

/** Passages that can be opened, each with where it stands. */
function draw_quotes(quotes, heading, are_hits) {
  const box = make("div", { class: "quotes" }, make("h4", { text: heading }));
  for (const quote of quotes) {
    const from = quote.start === null || quote.start === undefined ? "" : fill(words.characters, { start: quote.start, end: quote.end });
    const page = quote.page ? fill(words.page, { page: quote.page }) : "";
    const score = quote.score === null || quote.score === undefined ? "" : fill(words.score, { score: Number(quote.score).toPrecision(3) });
    const place = [page, from, score].filter(Boolean).join(" · ");
    const name = make("summary", {}, make("span", { text: quote.title || quote.source, dir: "auto" }), make("small", { text: place }));
    const source = quote.title ? make("p", { class: "muted", text: quote.source }) : null;
    box.append(make("details", { open: are_hits && quote === quotes[0] }, name, make("blockquote", { text: quote.text || "", dir: "auto" }), source));
  }
  return box;
}

function draw_error(error) {
  const name = error.status >= 500 ? "error_5xx" : error.status > 0 ? `error_${error.status}` : error.status === -1 ? "error_5xx" : "offline";
  const shown = [make("p", { class: "problem", role: "alert", text: error.message || words[name] || words.error_400 })];
  if (error.message && words[name]) shown.push(make("p", { text: words[name] }));
  if (error.retry) shown.push(make("p", { text: fill(words.wait, { seconds: error.retry }) }));
  if (error.status === 401) shown.push(make("p", {}, make("a", { href: words.sign_in, text: words.sign_in_again })));
  return shown;
}

/** Who answered, what it took, what it cost. */
function draw_account(answer) {
  const entry = answer.entry;
  const list = make("dl", { class: "account" });
  const add = (name, value) => value && list.append(make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
  if (answer.served) add(words.asked_for, answer.engine && answer.engine !== answer.served ? `${answer.served} (${answer.engine})` : answer.served);
  if (answer.failover) add(words.failover, answer.failover);
  if (entry) {
    const who = words[entry.counted_by] || entry.counted_by;
    const counted = entry.prompt_tokens !== null || entry.completion_tokens !== null;
    add(words.tokens_in, counted ? `${number(entry.prompt_tokens)} (${who})` : words.unknown);
    if (answer.text !== undefined) add(words.tokens_out, counted ? `${number(entry.completion_tokens)} (${who})` : words.unknown);
    add(words.money, number(entry.money));
    if (entry.masked) add(words.masked, number(entry.masked));
  }
  if (answer.text !== undefined) add(words.first, seconds(entry && entry.first_token_s !== null ? entry.first_token_s : answer.first));
  add(words.total, seconds(entry ? entry.seconds : answer.total));
  if (answer.cached || (entry && entry.cached)) list.append(make("div", {}, make("dt", { text: words.cached })));
  return list;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = words.copied;
  } catch {
    const area = make("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    if (document.execCommand("copy")) button.textContent = words.copied;
    area.remove();
  }
}

// --- the conversation

function draw() {
  by("turns").replaceChildren(...turns.map(draw_turn));
  by("send").hidden = Boolean(under_way);
  by("stop").hidden = !under_way;
  by("new").hidden = !turns.length;
}

function draw_turn(turn, place) {
  const question = make("p", { class: "question", dir: "auto", text: turn.question, title: words.you });
  const answers = make("div", { class: turn.answers.length > 1 ? "answers two" : "answers" });
  turn.answers.forEach((answer, column) => answer && answers.append(draw_answer(answer, place, column)));
  return make("li", {}, question, answers);
}

/** Draws one turn anew, at most once a frame. */
let waiting_frame = false;
function redraw(place) {
  if (waiting_frame) return;
  waiting_frame = true;
  requestAnimationFrame(() => {
    waiting_frame = false;
    const old = by("turns").children[place];
    if (old && turns[place]) old.replaceWith(draw_turn(turns[place], place));
  });
}

async function run(place, columns) {
  under_way = new AbortController();
  const turn = turns[place];
  const asked = columns.map(async ({ column, model }) => {
    const answer = { model: model.name, waiting: true };
    turn.answers[column] = answer;
    const slow = setTimeout(() => {
      answer.slow = model.local;
      redraw(place);
    }, 2000);
    await wire.ask(words, model, body_of(model, turn.question, column, place), answer, under_way.signal, () => redraw(place));
    clearTimeout(slow);
  });
  draw();
  by("turns").lastElementChild.scrollIntoView({ block: "nearest" });
  await Promise.all(asked);
  under_way = null;
  keep();
  draw();
  by("question").focus({ preventScroll: true });
}

function submit(event) {
  event.preventDefault();
  const question = by("question").value.trim();
  if (!question || under_way) return;
  const models = [choice("model"), choice("beside")].filter(Boolean);
  turns.push({ question, answers: [] });
  by("question").value = "";
  by("status").textContent = "";
  run(turns.length - 1, models.map((model, column) => ({ model, column })));
}

/** Asks the same question again, of the model that is chosen for this column now. */
function retry(place, column) {
  const model = choice(column === 0 ? "model" : "beside") || choice("model");
  run(place, [{ model, column }]);
}

function about() {
  for (const id of ["model", "beside"]) {
    const chosen = choice(id);
    by(`${id}-about`).textContent = chosen ? chosen.about : "";
  }
  const asked = [choice("model"), choice("beside")].filter(Boolean);
  by("settings-unused").hidden = asked.some((one) => !one.single);
  keep();
}

function begin() {
  const old = kept();
  turns = Array.isArray(old.turns) ? old.turns : [];
  for (const turn of turns) for (const answer of turn.answers) if (answer && answer.waiting) Object.assign(answer, { waiting: false, stopped: true });
  for (const id of ["system", "temperature", "most"]) by(id).value = old[id] || "";
  const asked = new URLSearchParams(location.search);
  for (const id of ["model", "beside"]) {
    const known = [...by(id).options].some((option) => option.value === old[id]);
    if (!asked.has("model") && !asked.has("beside") && known) by(id).value = old[id];
    by(id).addEventListener("change", about);
  }
  by("ask").addEventListener("submit", submit);
  by("stop").addEventListener("click", () => under_way && under_way.abort());
  by("new").addEventListener("click", () => {
    if (under_way) under_way.abort();
    turns = [];
    keep();
    draw();
  });
  by("question").addEventListener("keydown", (event) => {
    // Enter sends; while an input method is composing it chooses characters.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) submit(event);
  });
  about();
  draw();
}

if (root) begin();
