// Between the frames of one page in a notebook and the kernel: what a frame shows becomes the model's `state` and
// `cursor`, and a `state` that Python sets is shown in every frame. The frames are outputs of their own, which the saved
// notebook keeps; here they are found by their name, and heard by who they are, since their origin has no name.

/** Live as long as the model does, with or without a view of it. */
function initialize({ model }) {
  // what each frame shows, as far as is known here, and how many times it was told what to show
  const known = new WeakMap();

  // what follows in their names is what they show at first
  const frames = () =>
    [...document.querySelectorAll(`iframe[name^="${model.get("frame")}#"]`)]
      .map((frame) => frame.contentWindow)
      .filter((frame) => frame);

  const tell = (frame) => {
    const state = model.get("state");
    known.set(frame, { state, told: (known.get(frame)?.told ?? 0) + 1 });
    frame.postMessage({ stratoscope: 1, show: state }, "*");
  };

  const hear = ({ data, source }) => {
    if (data?.stratoscope !== 1 || typeof data.state !== "string" || !frames().includes(source)) return;
    if (data.start || !known.has(source)) {
      known.set(source, { state: data.state, told: data.heard });
      // a page that is drawn anew (the notebook was loaded again) goes on where the kernel is
      if (model.get("state")) return tell(source);
    }
    const one = known.get(source);
    // it was said before the last word from here came there
    if (data.heard < one.told) return;
    one.state = data.state;
    model.set("state", data.state);
    model.set("cursor", data.cursor ?? {});
    model.save_changes();
  };

  const follow = () => {
    const state = model.get("state");
    // never back to the frame that it came from: it may be further already
    for (const frame of frames()) if (known.get(frame)?.state !== state) tell(frame);
  };

  window.addEventListener("message", hear);
  model.on("change:state", follow);
  // those that were there before
  for (const frame of frames()) frame.postMessage({ stratoscope: 1, ask: true }, "*");

  return () => {
    window.removeEventListener("message", hear);
    model.off("change:state", follow);
  };
}

/** Nothing is drawn: the view is there so that every kind of notebook makes the model; the kernel may take it away then. */
function render({ model }) {
  model.send({ seen: true });
}

export default { initialize, render };
