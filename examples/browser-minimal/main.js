// From nothing to a field on the screen. With a bundler the first line is: import { join } from "peercompute";
import { join } from "/peercompute/index.js";

const [said, canvas] = [document.getElementById("said"), document.getElementById("field")];
try {
  const node = await join(location.href);
  const run = await node.run();
  run.onTick((tick) => (said.textContent = `${run.name}, tick ${tick}`));
  for (;;) {
    const { fields = [] } = await run.world();
    if (fields.length > 0) {
      const { width, height, pixels } = await run.frame(fields[0].name, 512);
      [canvas.width, canvas.height] = [width, height];
      canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
} catch (error) {
  said.textContent = `${error.code}: ${error.message}`;
}
