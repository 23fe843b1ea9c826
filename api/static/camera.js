// The camera: a picture of it, or its frames to the server, as fast as it answers and no faster.

const MAX_SIDE = 960; // px of a frame that is sent: the network sees fewer
const QUALITY = 0.8;

const REFUSALS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser’s settings, then start it again.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera can’t be opened. Another program may be using it.",
};

// Resolves to a stream; rejects with a sentence.
export async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("Cameras work on pages over https, or of this computer, only.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch (error) {
    throw new Error(REFUSALS[error.name] ?? "The camera can’t be opened.");
  }
}

// Resolves with the camera's next frame; while the page is hidden there is none.
function nextFrame(video) {
  if (!video.requestVideoFrameCallback) return new Promise((resolve) => setTimeout(resolve, 33));
  return new Promise((resolve) => video.requestVideoFrameCallback(resolve));
}

// Returns the video's present frame on a canvas whose longer side has `maxSide` px at most.
export function takeFrame(video, maxSide = Infinity) {
  const scale = Math.min(1, maxSide / Math.max(video.videoWidth, video.videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(Math.round(video.videoWidth * scale), 1);
  canvas.height = Math.max(Math.round(video.videoHeight * scale), 1);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

export function asJpeg(canvas, quality = 0.92) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
}

// Looks at a frame of `video` with `find` whenever the one before is answered; otherwise as `startLive`, without tracks.
export function startLocal(video, find, { onFaces, onEnd }) {
  let stopped = false;
  (async () => {
    try {
      while (!stopped) {
        await nextFrame(video);
        const frame = takeFrame(video, MAX_SIDE);
        const answer = await find(await createImageBitmap(frame));
        if (!stopped) onFaces(answer, frame);
      }
    } catch (error) {
      if (!stopped) onEnd({ detail: error.message });
    }
  })();
  return () => { stopped = true; };
}

// Sends a frame of `video` whenever the server has answered the one before, until `stop` is called or the server ends
// it. Calls `onFaces(answer, canvas)` for each frame, `onTrouble(sentence)` for one that was refused, `onEnd(sentence)` once,
// without a sentence after `stop`.
export function startLive(video, { key, conf }, { onFaces, onTrouble, onEnd }) {
  const address = new URL("v1/stream", document.baseURI);
  address.protocol = address.protocol.replace("http", "ws");
  if (conf) address.searchParams.set("conf", conf);
  const socket = new WebSocket(address);
  let why; // what the server said before it closed
  let stopped = false;
  let sent; // the frame that is looked at

  async function send() {
    if (stopped || socket.readyState !== WebSocket.OPEN) return;
    await nextFrame(video);
    sent = takeFrame(video, MAX_SIDE);
    const frame = await asJpeg(sent, QUALITY);
    if (!stopped && socket.readyState === WebSocket.OPEN) socket.send(frame);
  }

  socket.addEventListener("open", () => { if (key) socket.send(JSON.stringify({ api_key: key })); });
  socket.addEventListener("message", ({ data }) => {
    if (stopped) return;
    const message = JSON.parse(data);
    if (message.type === "faces") onFaces(message, sent);
    else if (message.type === "error" && message.frame === null) why = message.error;
    else if (message.type === "error") onTrouble(message.error);
    if (message.type !== "error" || message.frame !== null) setTimeout(send, 1000 * (message.retry_after_s ?? 0));
  });
  socket.addEventListener("close", ({ code }) => {
    if (stopped) return;
    stopped = true;
    onEnd(why ?? { detail: code === 1012 ? "the server restarts; start again" : "the connection to the server is lost" });
  });
  return () => {
    stopped = true;
    socket.close();
  };
}
