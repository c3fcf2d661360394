// Calls in the name of one client: its headers on each, and errors for what is refused.

import { randomBytes } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";
import { hostname } from "node:os";

import grpc from "@grpc/grpc-js";

import { MessagingService, codeNumber } from "./protocol.js";

export const VERSION = "1.0.0";
export const CALL_TIMEOUT_MS = 10_000;
// gRPC's own limit is 4 MiB, and so is a body's: a message is larger than its body.
const CHANNEL_OPTIONS = { "grpc.max_receive_message_length": 16 * 1024 * 1024 };

/** An answer whose own status is not OK; gRPC's status tells of the transport alone. */
export class Refusal extends Error {
  constructor({ code, message }) {
    super(`${code} (${codeNumber(code)}): ${message}`);
    this.code = code;
  }
}

/** Lets MULTIPLE_RESULTS pass: the entries differ then, and have statuses of their own. */
export function check(status) {
  if (status.code !== "OK" && status.code !== "MULTIPLE_RESULTS") throw new Refusal(status);
}

/** What servers take for one client: an id that goes with every call, over whatever connections. */
export class Client {
  #stubs = new Map();

  constructor() {
    this.headers = new grpc.Metadata();
    this.headers.set("x-mq-client-id", `${hostname()}@${process.pid}@${randomBytes(4).toString("hex")}`);
    this.headers.set("x-mq-language", "NODE_JS");
    this.headers.set("x-mq-client-version", VERSION);
    this.headers.set("x-mq-protocol", "v2");
  }

  /** Connects with the first call, and again after the connection broke. */
  stub(address, Service = MessagingService) {
    if (!this.#stubs.has(address)) {
      this.#stubs.set(address, new Service(address, grpc.credentials.createInsecure(), CHANNEL_OPTIONS));
    }
    return this.#stubs.get(address);
  }

  /** A plain call: call(stub, "sendMessage", request). Throws a Refusal, or gRPC's error with its code. */
  call(stub, method, request) {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + CALL_TIMEOUT_MS;
      stub[method](request, this.headers, { deadline }, (error, answer) => {
        if (error) error.message = `${stub.getChannel().getTarget()}: ${error.message}`;
        return error ? reject(error) : resolve(answer);
      });
    }).then((answer) => {
      check(answer.status);
      return answer;
    });
  }

  /**
   * The brokers whose queues of the topic may be used that way, READ or WRITE. A program that lives long asks again
   * every 30 s: brokers come and go.
   */
  async brokers({ endpoints, topic }, way) {
    const brokers = new Map();
    for (const { permission, broker } of await this.#route(endpoints, topic)) {
      if (permission === way || permission === "READ_WRITE") {
        // Where there are several addresses, any of them will do.
        brokers.set(broker.name, { name: broker.name, stub: this.stub(hostPort(broker.endpoints)) });
      }
    }
    if (!brokers.size) throw new Error(`no broker of topic ${topic} has the permission ${way} at present`);
    return [...brokers.values()];
  }

  /** The queues of a topic. Asks one access point after the other until one answers. */
  async #route(accessPoints, topic) {
    const failures = [];
    for (const endpoints of accessPoints) {
      try {
        // The endpoints say by which way we came: the brokers' addresses in the answer are those for the same way.
        const request = { topic: { name: topic }, endpoints };
        const answer = await this.call(this.stub(hostPort(endpoints)), "queryRoute", request);
        return answer.messageQueues;
      } catch (error) {
        if (error instanceof Refusal) throw error;
        failures.push(error.message);
      }
    }
    throw new Error(failures.join("\n"));
  }

  close() {
    for (const stub of this.#stubs.values()) stub.close();
  }
}

/** Reads an access point, "host:port". */
export function parseEndpoints(text) {
  const [, host, port] = /^\[?([^\]]+?)\]?:(\d+)$/.exec(text) ?? [];
  if (!host) throw new Error(`${text} is not host:port`);
  const scheme = isIPv4(host) ? "IPv4" : isIPv6(host) ? "IPv6" : "DOMAIN_NAME";
  return { scheme, addresses: [{ host, port: Number(port) }] };
}

function hostPort({ addresses: [{ host, port }] }) {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** 3500 -> 3.5 s, as protobuf says it */
export function duration(ms) {
  return { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1e6 };
}
