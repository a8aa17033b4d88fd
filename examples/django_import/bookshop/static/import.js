// Shows how far an import is, and sends what is done to rejected rows, without loading the page.

const $ = (selector, parent = document) => parent.querySelector(selector);
const INTERVAL = 400; // milliseconds between two looks, while there is something to wait for
const QUIET = 4; // looks without a change after which rows that nobody has are said to be lost

// -- the form for files -------------------------------------------------------------------

$(".drop input")?.addEventListener("change", ({ target }) => {
  $("#chosen").textContent = target.files[0]?.name ?? "Choose a CSV file";
});

// -- the progress -------------------------------------------------------------------------

let timer;
let latest = 0;
let waitedFor = 0;
let quiet = 0; // looks since anything has happened

async function poll() {
  clearTimeout(timer);
  const mine = ++latest;
  let state = null;
  try {
    const answer = await fetch("progress");
    state = answer.ok ? await answer.json() : null;
  } catch {
    // The server is away, which is said below.
  }
  if (mine !== latest) return; // another call knows more
  if (state) show(state);
  else say("The server does not answer. Trying again…");
  if (!state || !isDone(state)) timer = setTimeout(poll, INTERVAL);
}

const isDone = ({ total, stored, rejected }) => stored + rejected >= total;

function show(state) {
  const { total, stored, rejected } = state;
  const waiting = Math.max(0, total - stored - rejected);
  const percent = Math.floor((100 * (total - waiting)) / total);
  for (const [id, count] of Object.entries({ stored, rejected, waiting })) {
    $(`#${id}`).textContent = count.toLocaleString("en");
  }
  $("#percent").textContent = `${percent} %`;
  $(".bar").setAttribute("aria-valuenow", percent);
  $(".bar .stored").style.width = `${(100 * stored) / total}%`;
  $(".bar .rejected").style.width = `${(100 * rejected) / total}%`;
  quiet = state.idle && waiting === waitedFor ? quiet + 1 : 0;
  waitedFor = waiting;
  $("#stalled").hidden = isDone(state) || quiet < QUIET;
  say(!isDone(state) ? "Importing…" : rejected ? "Done, with rejected rows" : "All rows are stored");
  showLetters(state);
}

// A screen reader reads the text aloud when it changes, so it changes when that means something.
function say(text) {
  if ($("#status").textContent !== text) $("#status").textContent = text;
}

// -- rejected rows ------------------------------------------------------------------------

function showLetters({ rejected, letters }) {
  const list = $("#letters ul");
  const ids = new Set(letters.map(({ id }) => id));
  const shown = new Map([...list.children].map((item) => [item.dataset.id, item]));
  // What is shown already stays as it is: somebody may be writing into it.
  for (const [id, item] of shown) if (!ids.has(id)) item.remove();
  for (const letter of letters) if (!shown.has(letter.id)) list.append(makeLetter(letter));
  $("#letters").hidden = !rejected;
  $("#more").hidden = rejected <= letters.length;
  $("#more").textContent = `${rejected - letters.length} more appear when these are done.`;
}

function makeLetter(letter) {
  const item = $("#letter").content.cloneNode(true).firstElementChild;
  item.dataset.id = letter.id;
  $("form", item).ariaLabel = `Line ${letter.line}`;
  $(".line", item).textContent = `Line ${letter.line}`;
  $(".text", item).textContent = letter.reason;
  for (const button of item.querySelectorAll("button")) {
    button.formAction = `letters/${letter.id}/${button.value}`;
  }
  for (const input of item.querySelectorAll("input:not([type=hidden])")) {
    input.value = letter[input.name];
    if (letter.reason.includes(`${input.name}: `)) input.ariaInvalid = "true";
  }
  return item;
}

// -- forms of the page --------------------------------------------------------------------

async function send(event) {
  const form = event.target;
  const action = event.submitter?.getAttribute("formaction") ?? form.getAttribute("action");
  event.preventDefault();
  form.inert = true; // so that nothing is sent twice
  try {
    const answer = await fetch(action, { method: "POST", body: new FormData(form) });
    if (!answer.ok) alert(`This was not done (${answer.status}). Please try again.`);
    else if (form.closest(".letter")) {
      form.closest(".letter").remove();
      $("#letters h2").focus(); // and not nowhere, for who uses the keyboard
    }
  } catch {
    alert("The server does not answer. Please try again.");
  }
  form.inert = false;
  poll();
}

if ($("#progress")) {
  $("main").addEventListener("submit", send);
  poll();
}
