// Curves that follow a running step: every two seconds, while the tab is seen, asks whether there is something new.
const EVERY_MS = 2000, LONGEST_MS = 30000;
const block = document.getElementById("curves"), mark = document.getElementById("live");
const said = mark?.textContent;
let tag = "", wait = EVERY_MS, timer = 0;

async function look() {
  clearTimeout(timer);
  if (document.hidden) return; // goes on when it is seen again
  try {
    const answer = await fetch(block.dataset.live, {
      headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store", redirect: "error",
      signal: AbortSignal.timeout(15000),
    });
    if (answer.status === 404 || answer.status === 401 || answer.status === 403) return location.reload();
    if (answer.status === 200) {
      tag = answer.headers.get("ETag") ?? "";
      swap(await answer.text());
      if (answer.headers.get("X-Nacre-Live") === "no") return location.reload();
    } else if (answer.status !== 304) {
      throw new Error(answer.statusText);
    }
    wait = EVERY_MS;
    tell(said, true);
  } catch {
    wait = Math.min(2 * wait, LONGEST_MS);
    tell(mark?.dataset.lost, false);
  }
  timer = setTimeout(look, wait);
}

function swap(text) {
  const open = [...block.querySelectorAll("details")].map((one) => one.open);
  block.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  block.querySelectorAll("details").forEach((one, index) => { one.open = open[index] ?? false; });
}

function tell(text, good) {
  if (!mark || mark.textContent === text) return;
  mark.textContent = text;
  mark.classList.toggle("good", good);
  mark.classList.toggle("bad", !good);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
timer = setTimeout(look, EVERY_MS);
