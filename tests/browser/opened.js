// The notebook that is open in JupyterLab, its cells by their ids; everything goes through the Lab's own commands.
window.opened = {
  running: 0,
  frames: 0,

  get panel() { return window.jupyterapp?.shell.currentWidget; },
  get kernel() { return this.panel?.sessionContext?.session?.kernel; },

  ready(path) {
    const { context, sessionContext } = this.panel ?? {};
    return context?.path === path && context.isReady && sessionContext.isReady && this.kernel?.status === "idle";
  },

  index(id) {
    const found = this.panel.content.widgets.findIndex((cell) => cell.model.id === id);
    if (found < 0) throw new Error(`the notebook has no cell ${id}`);
    return found;
  },

  cell(id) { return this.panel.content.widgets[this.index(id)]; },

  // Begins commands, one after the other as long as none fails, and does not wait for them.
  start(commands, id) {
    this.running += 1;
    const run = async () => {
      for (const command of commands) {
        if (id) {
          this.panel.content.deselectAll();
          this.panel.content.activeCellIndex = this.index(id);
        }
        if ((await window.jupyterapp.commands.execute(command)) === false) return;
      }
    };
    run().finally(() => { this.running -= 1; });
  },

  settled() { return this.running === 0 && this.kernel?.status === "idle"; },

  // Scrolls to a cell, until it has stayed there for some frames: the Lab still corrects its own scrolling a moment
  // after a run, and the heights of cells that were never in view are guesses.
  show(id) {
    const scroller = this.panel.content.outerNode, { node } = this.cell(id);
    const off = () => node.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
    const end = () => scroller.scrollTop + scroller.clientHeight >= scroller.scrollHeight - 1;
    const stayed = Math.abs(off()) < 2 || (off() > 0 && end());
    this.frames = stayed ? this.frames + 1 : 0;
    if (!stayed) node.scrollIntoView();
    if (this.frames < 15) return false;
    this.frames = 0;
    return true;
  },

  rendered(id) {
    const shown = [...this.cell(id).node.querySelectorAll(".jp-OutputArea-output")];
    return shown.length >= this.cell(id).model.outputs.length && shown.every((output) => output.hasChildNodes());
  },

  // As if it was in view: text of cells that are not is no visible text to the browser.
  text(id) {
    const { node } = this.cell(id);
    node.style.contentVisibility = "visible";
    const shown = [...node.querySelectorAll(".jp-OutputArea-output")].map((output) => output.innerText);
    node.style.contentVisibility = "";
    return shown.join("\n");
  },

  laidOut(width) {
    return this.panel.node.getBoundingClientRect().right <= width && document.body.clientWidth === width;
  },

  // What no scrolling reaches: elements of outputs and texts that are cut off, or stick out of their cell, which
  // is painted no further than its edge.
  overflowing() {
    const found = [];
    const lets = (element, ...ways) => ways.includes(getComputedStyle(element).overflowX);
    for (const area of this.panel.content.node.querySelectorAll(".jp-Cell-outputArea, .jp-RenderedMarkdown")) {
      const cell = area.closest(".jp-Cell");
      for (const element of [area, ...area.querySelectorAll("*")]) {
        let at = element;
        while (at !== cell && lets(at, "visible")) at = at.parentElement;
        const out = at === cell && element.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
        const typed = element.matches("input, textarea, select");  // its caret scrolls it
        const cut = !typed && lets(element, "hidden", "clip") && element.scrollWidth > element.clientWidth + 1;
        const text = `<${element.localName}> ${element.textContent.slice(0, 60)}`;
        if (cut || out) found.push(`${cut ? "cut off" : "sticks out"}: ${text}`);
      }
    }
    const scroller = this.panel.content.outerNode;
    if (scroller.scrollWidth > scroller.clientWidth + 1) found.push("the notebook itself scrolls sideways");
    return found;
  },
};
