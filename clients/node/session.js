// A client's presence at brokers: to each of them a telemetry stream with its settings, and heartbeats.

import { once } from "node:events";
import { hostname, platform } from "node:os";

import { CALL_TIMEOUT_MS, VERSION, check, duration } from "./client.js";

const HEARTBEAT_INTERVAL_MS = 10_000; // as often as the official clients; silence tells servers that a client is gone

export class Session {
  #client;
  #brokers;
  #group;
  #streams = [];
  #heartbeats;

  /** Returns when every broker has answered the settings. */
  static async join(client, brokers, settings) {
    const session = new Session(client, brokers, settings.subscription?.group);
    try {
      for (const broker of brokers) await session.#introduce(broker, settings);
    } catch (error) {
      session.#end();
      throw error;
    }
    await session.#beat(settings.clientType);
    session.#heartbeats = setInterval(() => session.#beat(settings.clientType), HEARTBEAT_INTERVAL_MS);
    return session;
  }

  constructor(client, brokers, group) {
    this.#client = client;
    this.#brokers = brokers;
    this.#group = group;
  }

  /**
   * Opens the stream, which then stays open: its end tells the broker that the client is gone. A program that lives
   * long opens it again when it breaks.
   */
  async #introduce({ name, stub }, settings) {
    const stream = stub.telemetry(this.#client.headers);
    this.#streams.push(stream);
    stream.on("error", () => {});
    const userAgent = { language: "NODE_JS", version: VERSION, platform: platform(), hostname: hostname() };
    stream.write({ settings: { ...settings, requestTimeout: duration(CALL_TIMEOUT_MS), userAgent } });
    try {
      // Later there may be commands, but only for consumers with a listener and for senders of transactions.
      const [answer] = await once(stream, "data", { signal: AbortSignal.timeout(CALL_TIMEOUT_MS) });
      // Its settings hold what the broker prescribes: batch sizes, waiting times, how long a failed message stays away.
      check(answer.status);
    } catch (error) {
      throw new Error(`${name} does not take our settings: ${error.message}`);
    }
  }

  async #beat(clientType) {
    const heartbeat = { group: this.#group, clientType };
    // One that fails is made up for by the next.
    await Promise.allSettled(this.#brokers.map(({ stub }) => this.#client.call(stub, "heartbeat", heartbeat)));
  }

  /** Says goodbye, so that what the client holds goes to others at once. */
  async leave() {
    const goodbye = { group: this.#group };
    await Promise.allSettled(
      this.#brokers.map(({ stub }) => this.#client.call(stub, "notifyClientTermination", goodbye)),
    );
    this.#end();
  }

  #end() {
    clearInterval(this.#heartbeats);
    for (const stream of this.#streams) stream.cancel();
  }
}
