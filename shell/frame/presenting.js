// While presenting, buttons and the pointer are seen only for a moment after the mouse has moved.
const SEEN_MS = 2500;

export default function presenting() {
  const page = document.documentElement;
  let hiding;
  const moved = () => {
    page.dataset.moved = "";
    clearTimeout(hiding);
    hiding = setTimeout(() => delete page.dataset.moved, SEEN_MS);
  };
  document.addEventListener("pointermove", moved);
  return () => {
    document.removeEventListener("pointermove", moved);
    clearTimeout(hiding);
  };
}
