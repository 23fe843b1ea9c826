// The page: a picture in, boxes and bars out. No library, no foreign asset, nothing kept.

import { asJpeg, openCamera, startLive, startLocal, takeFrame } from "./camera.js";
import { $, drawBoxes, make, percent } from "./draw.js";

let current = null; // the picture last chosen
let asking = null; // aborts the request in flight
let shownUrl = null;
let stream = null; // of the camera
let worker = null; // finds faces on this device
let asked = 0;
let stopLive = null; // ends the frames to the server

function say(text, refused = false) {
  $("status").textContent = text;
  $("status").classList.toggle("refused", refused);
}

async function post(path, accept) {
  const form = new FormData();
  form.append("file", current, "picture");
  const headers = { accept };
  if ($("key").value) headers["x-api-key"] = $("key").value;
  const conf = Number($("conf").value);
  const query = conf ? `?conf=${conf / 100}` : "";
  return fetch(`v1/${path}${query}`, { method: "POST", body: form, headers, signal: asking.signal });
}

const hasServer = !("serverless" in document.documentElement.dataset);
const onDevice = () => !hasServer || document.querySelector("[name=where]:checked").value === "device";
const chosenConf = () => Number($("conf").value) / 100;

// Finds faces in a Blob or ImageBitmap in this browser; rejects with a sentence.
function findHere(picture) {
  worker ??= new Worker("static/device.js", { type: "module" });
  const id = (asked += 1);
  return new Promise((resolve, reject) => {
    const current = worker;
    const done = ({ data }) => {
      if (data.id !== id) return;
      current.removeEventListener("message", done);
      if (data.answer) resolve(data.answer);
      else reject(new Error(data.problem));
    };
    current.addEventListener("message", done);
    current.addEventListener("error", () => reject(new Error("this browser can’t find faces by itself")), { once: true });
    const transfer = picture instanceof ImageBitmap ? [picture] : [];
    current.postMessage({ id, picture, conf: chosenConf() }, transfer);
  });
}

async function lookHere(picture) {
  const mine = (asking = new AbortController());
  try {
    const answer = await findHere(picture);
    if (mine === asking) render(answer);
  } catch (error) {
    if (mine === asking) say(sentence(error.message), true);
  } finally {
    if (mine === asking) $("stage").classList.remove("busy");
  }
}

async function look(picture) {
  if (!picture) return;
  current = picture;
  asking?.abort();
  show(picture);
  say("Looking for faces …");
  $("stage").classList.add("busy");
  if (onDevice()) {
    lookHere(picture);
    return;
  }
  const mine = (asking = new AbortController());
  try {
    const response = await post("detect", "application/json");
    const body = await response.json();
    await $("shown").decode().catch(() => {}); // its width on the screen gives the letters' size
    if (mine !== asking) return;
    if (response.ok) render(body);
    else refuse(response.status, body, response.headers.get("retry-after"));
  } catch (error) {
    if (error.name !== "AbortError") say("The server can’t be reached. Is it running?", true);
  } finally {
    if (mine === asking) $("stage").classList.remove("busy");
  }
}

function show(picture) {
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = URL.createObjectURL(picture);
  $("shown").src = shownUrl;
  $("shown").alt = "The picture you chose";
  $("boxes").replaceChildren();
  $("timing").textContent = "";
  $("picture").hidden = false;
  $("answer").hidden = true;
}

// A format that the browser can't show (HEIC, TIFF): let the server draw it.
async function showDrawn() {
  if (!shownUrl || $("shown").src !== shownUrl) return;
  if (onDevice()) {
    $("shown").alt = "This browser can’t show the picture";
    return;
  }
  try {
    const response = await post("annotate", "image/jpeg");
    if (!response.ok) throw new Error("refused");
    const drawn = URL.createObjectURL(await response.blob());
    URL.revokeObjectURL(shownUrl);
    shownUrl = null;
    $("boxes").replaceChildren();
    $("shown").src = drawn;
  } catch {
    $("shown").alt = "This browser can’t show the picture";
  }
}

function askForKey() {
  $("key").hidden = $("key-label").hidden = false;
  $("key").focus();
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function refuse(status, problem, retryAfter) {
  if (status === 401) askForKey();
  const detail = sentence(problem.detail ?? "the server refused the picture");
  say(retryAfter ? `${detail} Try again in ${retryAfter} s.` : detail, true);
}

function render(answer) {
  const { detections, image, timing_ms: timing } = answer;
  const names = detections.map((detection) => detection.emotion).join(", ");
  const faces = detections.length === 1 ? "1 face" : `${detections.length} faces`;
  say(detections.length ? `${faces}: ${names}` : "No face found.");
  $("shown").alt = detections.length ? `Your picture with ${faces}: ${names}` : "Your picture; no face was found";
  $("boxes").replaceChildren();
  if (shownUrl) {
    drawBoxes($("boxes"), answer, (_, index) => index + 1);
    [...$("boxes").children].forEach((group, index) => { group.id = `box-${index}`; });
  }
  $("faces").replaceChildren(...detections.map(face));
  $("timing").textContent = `${image.width} × ${image.height} px · ${Object.entries(timing)
    .map(([phase, ms]) => `${phase} ${ms.toFixed(1)} ms`)
    .join(" · ")}`;
  $("json").textContent = JSON.stringify(answer, null, 2);
  $("answer").hidden = false;
}

function face({ emotion, confidence, probabilities }, index) {
  const bars = make("dl");
  for (const [name, share] of Object.entries(probabilities).sort((a, b) => b[1] - a[1])) {
    const bar = make("span", { className: name });
    bar.style.width = `${100 * share}%`;
    const track = make("dd", { className: "bar" }, bar);
    track.setAttribute("aria-hidden", "true");
    bars.append(make("dt", { text: name }), track, make("dd", { className: "share", text: percent(share) }));
  }
  const title = `Face ${index + 1}: ${emotion}`;
  const sure = make("span", { className: "quiet", text: ` · a face with ${percent(confidence)} confidence` });
  const item = make("li", { className: emotion }, make("h3", { text: title }, sure), bars);
  item.tabIndex = 0;
  const light = (on) => () => $(`box-${index}`)?.classList.toggle("lit", on);
  for (const event of ["pointerenter", "focus"]) item.addEventListener(event, light(true));
  for (const event of ["pointerleave", "blur"]) item.addEventListener(event, light(false));
  return item;
}

function pictureOf(transfer) {
  return [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/") || !file.type);
}

// Shows the camera, for a photo or, with `live`, for as long as it runs.
async function startCamera(live) {
  if (stream) return;
  try {
    stream = await openCamera();
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("video").srcObject = stream;
  $("drop").hidden = true;
  $("camera").hidden = false;
  $("shoot").hidden = live;
  $("live-figures").hidden = !live;
  $("stop").textContent = live ? "Stop" : "Cancel";
  (live ? $("stop") : $("shoot")).focus();
  // A camera that is pulled out, or taken away by the browser.
  stream.getVideoTracks()[0].addEventListener("ended", () => stopCamera("The camera has stopped."));
  if (live) goLive();
}

function stopCamera(text) {
  const wasLive = stopLive !== null;
  stopLive?.();
  stopLive = null;
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
  $("live-boxes").replaceChildren();
  $("live-frame").width = 0;
  $("camera").hidden = true;
  $("drop").hidden = false;
  $(wasLive ? "live" : "photograph").focus();
  if (text) say(text, true);
}

async function shoot() {
  if (!$("video").videoWidth) return;
  const picture = await asJpeg(takeFrame($("video")));
  stopCamera();
  look(picture);
}

function goLive() {
  $("picture").hidden = $("answer").hidden = true;
  const local = onDevice();
  say(local ? "Live. Frames stay in this browser." : "Live. Frames go to the server and are not stored.");
  let answers = 0;
  let since = performance.now();
  $("live-figures").textContent = local ? "Loading the model …" : "Waiting for the server …";
  const listener = {
    onFaces(answer, frame) {
      // The frame that was looked at: boxes lie on its faces however long that took.
      const shown = $("live-frame");
      shown.width = frame.width;
      shown.height = frame.height;
      shown.getContext("2d").drawImage(frame, 0, 0);
      drawBoxes($("live-boxes"), answer, ({ track }) => (Number.isInteger(track) ? `#${track}` : "–"));
      answers += 1;
      const seconds = (performance.now() - since) / 1000;
      if (seconds < 0.5) return; // figures that change with each frame can't be read
      const faces = answer.detections.length === 1 ? "1 face" : `${answer.detections.length} faces`;
      const rate = (answers / seconds).toFixed(1);
      $("live-figures").textContent = `${faces} · ${rate} frames/s · ${answer.timing_ms.total.toFixed(0)} ms each`;
      answers = 0;
      since = performance.now();
    },
    onTrouble({ detail }) {
      $("live-figures").textContent = sentence(detail);
    },
    onEnd({ code, detail }) {
      stopCamera(sentence(detail));
      if (code === "unauthorized") askForKey();
    },
  };
  stopLive = local
    ? startLocal($("video"), findHere, listener)
    : startLive($("video"), { key: $("key").value, conf: chosenConf() }, listener);
}

function showWhere() {
  const local = onDevice();
  for (const element of document.querySelectorAll(".local")) element.hidden = !local;
  for (const element of document.querySelectorAll(".served")) element.hidden = local;
}

async function introduce() {
  const headers = $("key").value ? { "x-api-key": $("key").value } : {};
  try {
    const response = await fetch("v1/model", { headers });
    if (response.ok) {
      const { name, version, input_px: side } = await response.json();
      $("model").textContent = `${name} ${version}, looks at ${side} px`;
    } else if (response.status === 401) {
      $("model").textContent = "This server requires an API key.";
      $("key").hidden = $("key-label").hidden = false;
    } else setTimeout(introduce, 1000);
  } catch {
    $("model").textContent = "The server can’t be reached.";
  }
}

$("pick").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { look($("file").files[0]); $("file").value = ""; });
$("photograph").addEventListener("click", () => startCamera(false));
$("live").addEventListener("click", () => startCamera(true));
$("shoot").addEventListener("click", shoot);
$("stop").addEventListener("click", () => { if (stopLive) say("Stopped."); stopCamera(); });
window.addEventListener("pagehide", () => stopCamera());
$("shown").addEventListener("error", showDrawn);
$("options").addEventListener("submit", (event) => { event.preventDefault(); introduce(); look(current); });
$("key").addEventListener("change", () => { introduce(); look(current); });
$("conf").addEventListener("input", () => {
  const text = Number($("conf").value) ? `${$("conf").value} %` : "model’s own";
  $("conf-value").textContent = text;
  $("conf").setAttribute("aria-valuetext", text);
});
$("conf").addEventListener("change", () => look(current));
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("json").textContent);
  say("Copied.");
});
for (const event of ["dragover", "dragenter"]) {
  document.addEventListener(event, (drag) => { drag.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (drag) => { if (!drag.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (drop) => {
  drop.preventDefault();
  $("drop").classList.remove("over");
  const picture = pictureOf(drop.dataTransfer);
  if (picture) look(picture);
  else say("That is no picture.", true);
});
document.addEventListener("paste", (paste) => {
  const picture = pictureOf(paste.clipboardData);
  if (picture) look(picture);
});
document.querySelectorAll("[name=where]").forEach((choice) => {
  choice.addEventListener("change", () => { showWhere(); stopCamera(); look(current); });
});
$("where").hidden = !hasServer || !("device" in document.documentElement.dataset);
showWhere();
$("programs").hidden = !hasServer;
if (hasServer) introduce();
else $("model").textContent = "Works in this browser alone.";
