// Squares over a picture, painted by pointer or keys; after every stroke the page is told which are painted.
window.tesseraBrush = (id, grid, painted) => {
  const board = document.getElementById("c" + id);
  const on = new Set(painted);
  let at = Math.floor(grid / 2) * (grid + 1), stroke = null;
  board.style.setProperty("--grid", grid);
  board.replaceChildren(...Array.from({ length: grid * grid }, () => document.createElement("i")));
  const draw = () => [...board.children].forEach((cell, i) => {
    cell.classList.toggle("on", on.has(i));
    cell.classList.toggle("at", i === at);
  });
  const set = (i, value) => { value ? on.add(i) : on.delete(i); at = i; draw(); };
  const tell = () => emitEvent("painted", [...on].sort((a, b) => a - b));
  const under = event => {
    const box = board.getBoundingClientRect();
    const [column, row] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
      .map(share => Math.min(grid - 1, Math.max(0, Math.floor(share * grid))));
    return row * grid + column;
  };
  board.onpointerdown = event => {
    event.preventDefault();
    board.focus({ preventScroll: true });
    board.setPointerCapture(event.pointerId);
    stroke = !on.has(under(event));
    set(under(event), stroke);
  };
  board.onpointermove = event => { if (stroke !== null) set(under(event), stroke); };
  board.onpointerup = board.onpointercancel = () => { if (stroke !== null) { stroke = null; tell(); } };
  board.onkeydown = event => {
    const [row, column] = [Math.floor(at / grid), at % grid];
    const moved = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (moved) {
      const inside = place => Math.min(grid - 1, Math.max(0, place));
      at = inside(row + moved[0]) * grid + inside(column + moved[1]);
      if (event.shiftKey) { on.add(at); tell(); }
    } else if (event.key === " " || event.key === "Enter") {
      set(at, !on.has(at));
      tell();
    } else return;
    event.preventDefault();
    draw();
  };
  draw();
};
