import { randomBytes } from "node:crypto";
import { hostname } from "node:os";

import grpc from "@grpc/grpc-js";

import { Client, Refusal, check } from "./client.js";
import { Session } from "./session.js";

/** Spreads the messages over the brokers of the topic. On the broker each goes to a queue of the broker's choice. */
export async function send(options) {
  const client = new Client();
  try {
    const brokers = await client.brokers(options, "WRITE");
    const session = await Session.join(client, brokers, {
      clientType: "PRODUCER",
      publishing: { topics: [{ name: options.topic }] },
    });
    try {
      for (let number = 0; number < options.count; number++) {
        const message = newMessage(options.topic, number);
        await sendOne(client, brokers, number, message);
        console.log(show(message));
      }
    } finally {
      await session.leave();
    }
  } finally {
    client.close();
  }
}

/**
 * Returns when a broker has the message on its disk. One that is down, or takes no writes because it is about to
 * leave the cluster, is passed over. A send that broke off may have been stored, so the message can come twice then:
 * consumers tell by its id.
 */
async function sendOne(client, brokers, number, message) {
  for (let attempt = 0; ; attempt++) {
    const { stub } = brokers[(number + attempt) % brokers.length];
    try {
      const { entries } = await client.call(stub, "sendMessage", { messages: [message] });
      check(entries[0].status); // one for each message of the request
      return;
    } catch (error) {
      if (attempt === brokers.length - 1 || !isElsewherePossible(error)) throw error;
    }
  }
}

function isElsewherePossible(error) {
  return error instanceof Refusal ? error.code === "FORBIDDEN" : error.code === grpc.status.UNAVAILABLE;
}

function newMessage(topic, number) {
  const now = Date.now();
  return {
    topic: { name: topic },
    body: Buffer.from(`Hello ✓ number ${number} from Node`),
    userProperties: { language: "Node", number: String(number) },
    systemProperties: {
      messageId: `01${randomBytes(16).toString("hex").toUpperCase()}`, // the sender's to choose; it has to be unique
      tag: "greeting", // consumers can ask for messages by their tag
      keys: ["Node", `Node-${number}`], // by them it can be looked up
      messageType: "NORMAL",
      bodyEncoding: "IDENTITY",
      bornTimestamp: { seconds: Math.floor(now / 1000), nanos: (now % 1000) * 1e6 },
      bornHost: hostname(),
    },
  };
}

/** One line of a message. */
export function show({ body, userProperties, systemProperties: { messageId, tag, keys } }) {
  const properties = Object.entries(userProperties).map(([name, value]) => `${name}=${value}`);
  return [messageId, tag, keys.join(","), properties.sort().join(","), body.toString()].join("\t");
}
