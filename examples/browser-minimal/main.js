// From nothing to a field on the screen. With a bundler the first line is: import { join } from "peercompute";
import { join } from "/peercompute/index.js";

const [said, canvas] = [document.getElementById("said"), document.getElementById("field")];
const say = (text) => (said.textContent = text);
try {
  const node = await join(location.href);
  const run = await node.run();
  run.onTick((tick) => say(`${run.name}, tick ${tick}`));
  let isOver = false;
  run.ended.then(({ state, error, code }) => ((isOver = true), say(state === "failed" ? `${code}: ${error}` : state)));
  while (!isOver) {
    try {
      const { fields = [] } = await run.world();
      if (fields.length > 0) {
        const { width, height, pixels } = await run.frame(fields[0].name, 512);
        [canvas.width, canvas.height] = [width, height];
        canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
      }
    } catch (error) {
      // A server that is gone may come back, and the run goes on; what is over is told by its end.
      if (error.code === "lost") say(`${error.message}; trying again`);
      else if (error.code !== "left") throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
} catch (error) {
  say(`${error.code}: ${error.message}`);
}
