import {
  context,
  isSpanContextValid,
  propagation,
  ROOT_CONTEXT,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Attributes,
  type Context,
  type Link,
  type Span,
  type SpanOptions,
} from "@opentelemetry/api";
import { BursarError } from "@bursar/protocol";

/**
 * Spans by the OpenTelemetry API, which does nothing until something is set up to record them. Their attributes name no
 * account, amount or reference: nothing that is not public on chain.
 */
const tracer = () => trace.getTracer("bursar");

/** Links of a span at most. */
export const MOST_LINKS = 32;

/** Whether spans are recorded at all: then it is worth reading what they are to say. */
export const isTracing = (): boolean => propagation.fields().length > 0;

/** Does `work` in a span. Of an error the span keeps the code alone: its message may name accounts. */
export function traced<T>(
  name: string,
  options: SpanOptions,
  work: (span: Span) => Promise<T>,
  parent: Context = context.active(),
): Promise<T> {
  return tracer().startActiveSpan(name, options, parent, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      const code = error instanceof BursarError ? error.code : (error as Error).name;
      span.setStatus({ code: SpanStatusCode.ERROR, message: code });
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Like {@link traced}, where something is traced around it. */
export function tracedWithin<T>(name: string, options: SpanOptions, work: () => Promise<T>): Promise<T> {
  return trace.getActiveSpan() === undefined ? work() : traced(name, options, work);
}

/** Records a span that is over. @param began - by `performance.now()`. */
export function tracedSince(name: string, began: number, attributes: Attributes, parent: Context): void {
  tracer().startSpan(name, { startTime: began, attributes }, parent).end();
}

/**
 * Records the span of something that comes from several others: it goes on with the trace of the first, and is linked to the
 * rest.
 * @returns how other processes go on with it, see {@link traceparentOf}.
 */
export function tracedFrom(
  name: string,
  began: number,
  attributes: Attributes,
  sources: readonly string[],
): string | null {
  const [first = null, ...rest] = sources;
  const links = rest.slice(0, MOST_LINKS).flatMap((source): Link[] => {
    const linked = trace.getSpanContext(contextOf(source));
    return linked === undefined ? [] : [{ context: linked }];
  });
  const span = tracer().startSpan(name, { startTime: began, attributes, links }, contextOf(first));
  span.end();
  return traceparentOf(span);
}

/** Runs `work` as if it were called where `parent` was active. */
export const inContext = <T>(parent: Context, work: () => T): T => context.with(parent, work);
export const activeContext = (): Context => context.active();

/** What a `traceparent` of another process (W3C Trace Context) says; what it does not say rightly is left out. */
export const contextOf = (traceparent: unknown): Context =>
  typeof traceparent === "string" ? propagation.extract(ROOT_CONTEXT, { traceparent }) : ROOT_CONTEXT;

/** A `traceparent` with which another process goes on, or null where nothing is traced. */
function traceparentOf(span: Span | undefined): string | null {
  const now = span?.spanContext();
  if (now === undefined || !isSpanContextValid(now)) return null;
  return `00-${now.traceId}-${now.spanId}-${now.traceFlags.toString(16).padStart(2, "0")}`;
}

/** Of the active span, if it is recorded. */
export function activeTraceparent(): string | null {
  const span = trace.getActiveSpan();
  return ((span?.spanContext().traceFlags ?? 0) & TraceFlags.SAMPLED) === 0 ? null : traceparentOf(span);
}
