// A small client of Kourou in Node, made from the .proto files: it creates a topic and a group, and sends, receives and
// acknowledges messages.
//
//   npm ci                  installs what it needs; the .proto files are read when it starts, so nothing is generated
//   node main.js create     a topic and a group
//   node main.js send       so many messages
//   node main.js receive    so many messages
//   node main.js            all three
//
// --help lists the flags. Sent and received messages come out as one line each: id, tag, keys, properties and body.

import { parseArgs } from "node:util";

import { parseEndpoints } from "./client.js";
import { create } from "./create.js";
import { receive } from "./receive.js";
import { send } from "./send.js";

const USAGE = `usage: node main.js [create|send|receive] [flags]; without a command, all three
  --endpoints  access points, separated by commas (127.0.0.1:8081)
  --admin      the admin service (127.0.0.1:9080)
  --topic      the topic (hello)
  --group      the consumer group (readers)
  --count      messages to send or receive (10)
  --idle-s     receive: give up after so many seconds without a message (30)`;
const COMMANDS = { create, send, receive };

/** Throws an error that is the user's fault. */
function parse() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      endpoints: { type: "string", default: "127.0.0.1:8081" },
      admin: { type: "string", default: "127.0.0.1:9080" },
      topic: { type: "string", default: "hello" },
      group: { type: "string", default: "readers" },
      count: { type: "string", default: "10" },
      "idle-s": { type: "string", default: "30" },
      help: { type: "boolean" },
    },
  });
  const unknown = positionals.find((name) => !Object.hasOwn(COMMANDS, name));
  if (unknown) throw new Error(`there is no command ${unknown}`);
  const options = {
    endpoints: values.endpoints.split(",").map(parseEndpoints),
    admin: values.admin,
    topic: values.topic,
    group: values.group,
    count: number(values.count),
    idleMs: number(values["idle-s"]) * 1000,
  };
  return { help: values.help, options, commands: positionals.length ? positionals : Object.keys(COMMANDS) };
}

function number(text) {
  if (!/^\d+$/.test(text)) throw new Error(`${text} is not a number`);
  return Number(text);
}

function parseOrExit() {
  try {
    return parse();
  } catch (error) {
    console.error(`error: ${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

const { help, options, commands } = parseOrExit();
if (help) {
  console.log(USAGE);
  process.exit();
}
try {
  for (const command of commands) await COMMANDS[command](options);
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
