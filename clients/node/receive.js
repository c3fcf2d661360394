import { gunzipSync } from "node:zlib";

import { CALL_TIMEOUT_MS, Client, check, duration } from "./client.js";
import { show } from "./send.js";
import { Session } from "./session.js";

const POLL_MS = 5000; // how long a broker may wait for messages before it answers that there are none
const INVISIBLE_MS = 30_000; // what is not acknowledged by then comes again, to whichever member of the group asks
const BATCH_SIZE = 32;
const ANY_QUEUE = -1; // of the broker that is asked
const EVERYTHING = { type: "TAG", expression: "*" }; // or tags, as in "paid || shipped"

/** Asks the brokers of the topic in turn, until enough messages came. */
export async function receive(options) {
  const client = new Client();
  try {
    const brokers = await client.brokers(options, "READ");
    const session = await Session.join(client, brokers, {
      clientType: "SIMPLE_CONSUMER",
      subscription: {
        group: { name: options.group },
        subscriptions: [{ topic: { name: options.topic }, expression: EVERYTHING }],
      },
    });
    try {
      await receiveFrom(brokers, client, options);
    } finally {
      await session.leave();
    }
  } finally {
    client.close();
  }
}

async function receiveFrom(brokers, client, options) {
  let received = 0;
  let latest = Date.now();
  for (let turn = 0; received < options.count; turn++) {
    const { stub } = brokers[turn % brokers.length];
    const messages = await poll(client, stub, options, Math.min(BATCH_SIZE, options.count - received));
    for (const message of messages) console.log(show(message));
    // Only now that they are dealt with: if we end before, they come again.
    if (messages.length) await acknowledge(client, stub, options, messages);
    received += messages.length;
    if (messages.length) latest = Date.now();
    else if (Date.now() - latest >= options.idleMs) {
      const idle = `${options.idleMs / 1000} s`;
      throw new Error(`${received} of ${options.count} messages came, and then none for ${idle}`);
    }
  }
}

/** One long poll. That there are no messages is no error. */
async function poll(client, stub, { topic, group, idleMs }, most) {
  const wait = Math.min(POLL_MS, idleMs);
  const request = {
    group: { name: group },
    messageQueue: { topic: { name: topic }, id: ANY_QUEUE },
    filterExpression: EVERYTHING,
    batchSize: most,
    invisibleDuration: duration(INVISIBLE_MS),
    longPollingTimeout: duration(wait),
  };
  const messages = [];
  const parts = stub.receiveMessage(request, client.headers, { deadline: Date.now() + wait + CALL_TIMEOUT_MS });
  for await (const part of parts) {
    // Each part is a status, a message, or the time of delivery.
    if (part.content === "message") messages.push(unpacked(part.message));
    else if (part.content === "status" && part.status.code !== "MESSAGE_NOT_FOUND") check(part.status);
  }
  return messages;
}

/** With the body as its sender wrote it: some clients pack large ones. */
function unpacked(message) {
  const packed = message.systemProperties.bodyEncoding === "GZIP";
  return packed ? { ...message, body: gunzipSync(message.body) } : message;
}

/** Returns when the broker has it on its disk: the messages will not come again. */
async function acknowledge(client, stub, { topic, group }, messages) {
  const entries = messages.map(({ systemProperties: { messageId, receiptHandle } }) => ({ messageId, receiptHandle }));
  const request = { group: { name: group }, topic: { name: topic }, entries };
  for (const { status } of (await client.call(stub, "ackMessage", request)).entries) check(status);
}
