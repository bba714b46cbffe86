import { context, propagation, trace } from "@opentelemetry/api";

import { REPLICA } from "./http/metrics.ts";

/** Spans are being sent to a collector. */
export interface Tracing {
  /** Sends what is left, for some seconds at most. */
  stop(): Promise<void>;
}

/** Milliseconds for which the last spans are offered to a collector. */
const PATIENCE = 3_000;

/**
 * Sends spans over OTLP/HTTP where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says to; the library
 * reads these, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and its other variables itself.
 * @returns null where neither is set: then nothing of it is even loaded.
 */
export async function startTracing(
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<Tracing | null> {
  const endpoint = environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] ?? environment["OTEL_EXPORTER_OTLP_ENDPOINT"];
  if (endpoint === undefined || endpoint === "" || environment["OTEL_SDK_DISABLED"] === "true") return null;
  const [{ BatchSpanProcessor, NodeTracerProvider }, { OTLPTraceExporter }, resources] = await Promise.all([
    import("@opentelemetry/sdk-trace-node"),
    import("@opentelemetry/exporter-trace-otlp-http"),
    import("@opentelemetry/resources"),
  ]);
  const own = resources.resourceFromAttributes({ "service.name": "bursar", "service.instance.id": REPLICA });
  const named = resources.detectResources({ detectors: [resources.envDetector] });
  const provider = new NodeTracerProvider({
    resource: own.merge(named),
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
  });
  provider.register();
  return {
    stop: async () => {
      const late = new Promise((resolve) => setTimeout(resolve, PATIENCE).unref());
      // A collector that is gone is no reason to fail.
      await Promise.race([provider.shutdown().catch(() => undefined), late]);
      for (const api of [trace, context, propagation]) api.disable();
    },
  };
}
