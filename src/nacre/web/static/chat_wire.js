// Requests of the chat: one answer, whole or as server-sent events, and what the ledger says of it.

/** Asks one model and fills `answer` as it speaks. `to` holds the addresses `send` and `entry`; `changed` hears of more. */
export async function ask(to, model, body, answer, signal, changed) {
  const began = performance.now();
  try {
    const response = await fetch(`${to.send}/${model.route}`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
    });
    const kind = response.headers.get("content-type") || "";
    if (response.redirected || kind.startsWith("text/html")) {
      answer.error = { status: response.redirected ? 401 : response.status, message: "" };
      return;
    }
    read_headers(response.headers, answer);
    if (!response.ok) {
      const plain = await response.json().catch(() => ({}));
      const told = plain.error || {};
      answer.error = { status: response.status, message: told.message || "", code: told.code, retry: response.headers.get("retry-after") };
    } else if (kind.startsWith("text/event-stream")) {
      await read_events(response.body, (event) => take(event, answer, began, changed));
    } else {
      whole(await response.json(), answer);
    }
  } catch (error) {
    if (signal.aborted) answer.stopped = true;
    else answer.error = { status: 0, message: "" };
  } finally {
    answer.total = (performance.now() - began) / 1000;
    answer.waiting = false;
    changed();
  }
  await account(to, answer);
  changed();
}

function read_headers(headers, answer) {
  answer.id = headers.get("x-nacre-id");
  const served = headers.get("x-nacre-model");
  answer.served = served && decode(served);
  answer.engine = headers.get("x-nacre-engine") && decode(headers.get("x-nacre-engine"));
  answer.failover = headers.get("x-nacre-failover");
  answer.cached = headers.has("x-nacre-cache");
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Server-sent events of a body: the JSON of each `data`, up to [DONE]. */
async function read_events(stream, hear) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    held += value || "";
    const events = held.split(/\r\n\r\n|\n\n|\r\r/);
    held = done ? "" : events.pop();
    for (const event of events) {
      const data = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data && data !== "[DONE]") {
        let plain = null;
        try {
          plain = JSON.parse(data);
        } catch {
          continue;
        }
        hear(plain);
      }
    }
    if (done) return;
  }
}

function take(event, answer, began, changed) {
  if (event.error) {
    answer.error = { status: answer.text ? -1 : 502, message: event.error.message || "", code: event.error.code };
  }
  const first = (event.choices || [])[0];
  const piece = first ? (first.delta ? first.delta.content : first.text) : "";
  if (piece) {
    if (!answer.text) answer.first = (performance.now() - began) / 1000;
    answer.text = (answer.text || "") + piece;
  }
  if (first && first.finish_reason === "length") answer.cut = true;
  if (event.citations) answer.citations = event.citations;
  changed();
}

function whole(plain, answer) {
  const first = (plain.choices || [])[0];
  if (first) {
    answer.text = first.message ? first.message.content || "" : first.text || "";
    answer.cut = first.finish_reason === "length";
    answer.citations = plain.citations;
  } else if (Array.isArray(plain.data)) {
    const one = plain.data[0] || {};
    if (Array.isArray(one.scores)) Object.assign(answer, { label: one.label, scores: one.scores, problem: one.problem, citations: one.citations });
    else answer.hits = plain.data;
  }
}

/** What the ledger has of it: tokens, money, times. It is entered before the last byte goes out, or a moment later. */
async function account(to, answer) {
  if (!answer.id) return;
  for (const wait of [0, 300, 1000]) {
    await new Promise((go) => setTimeout(go, wait));
    const response = await fetch(`${to.entry}/${encodeURIComponent(answer.id)}`).catch(() => null);
    if (response && response.ok && !response.redirected) {
      answer.entry = await response.json().catch(() => null);
      return;
    }
  }
}
