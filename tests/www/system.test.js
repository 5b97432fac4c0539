// www/system.js: the calculations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { stateText } from "../../www/system.js";

const check = (actual, expected) => assert.deepEqual(actual, expected);

test("the state is a sentence", () => {
  const health = (more, clock) => ({
    status: "healthy", reason: null, ...more,
    details: { clock },
  });
  check(stateText(health()), "All is well.");
  check(stateText(health({ status: "degraded", reason: "collection is stopped" })), "Collection is stopped.");
  assert.match(stateText(health({}, { believed: false })), /clock is not right/);
});
