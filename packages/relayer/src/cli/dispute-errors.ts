import { BursarError } from "@bursar/protocol";

const SHOW = "See `bursar dispute show`.";

/** What to do when the dispute module or the arbiters refuse, by the name of their error. */
const ADVICE: Readonly<Record<string, string>> = {
  InsufficientHeld: "Its money does not wait in the hold: what is matured is the payee's and cannot be disputed.",
  NotPaid: "Wait until the payment is settled.",
  TooLateToFile: "Too much time has passed: a payment is disputed while its own money waits.",
  OnlyOwnerOrAgent: "Name the key of the mandate's owner or agent with --as.",
  OnlyPayee: "Name the payee's key with --as.",
  OnlyParty: "Name the key of the owner, the agent or the payee with --as.",
  DeadlineNotOver: `Wait until then. ${SHOW}`,
  DeadlineOver: "Anyone may end it now: `bursar dispute resolve`.",
  WrongStatus: SHOW,
  WrongAnswer: "A signed delivery answers «not-delivered» and «double-charge», evidence answers «other».",
  DeliveryMismatch: "The delivery is of another payment.",
  DeliveredTooLate: "A delivery after that time does not count: refund, or let the answer time run out.",
  WrongSigner: "Somebody else signed it.",
  QuoteNotExceeded: "The price was not above the quote: file another kind.",
  QuoteExpired: "The quote had ended when the payment was made.",
  NotChargedBefore: "Both payments must have one reference, and the earlier one the lower number.",
  NoArbiter: "Every arbiter is busy: try again before the deadline.",
  OnlyArbiter: "Name an arbiter's key with --as.",
  OnlyAssigned: "Another arbiter has this case: see `bursar arbiter cases`.",
  RulingTooLate: "The time to rule is over: `bursar arbiter expire` ends the case.",
  RulingNotDue: "The arbiter may still rule until then.",
  NotWaiting: "The case has its ruling.",
  NoNotice: "Give notice first: `bursar arbiter notice`.",
  NoticeNotOver: "Wait until the notice is over.",
  DisputesOpen: "Rule over the open cases first: see `bursar arbiter cases`.",
  NothingOwed: "There is nothing to take.",
};

/** @param reason - the contract's error with its arguments, as the chain explains it. */
export function explainedByAdvice(reason: string): BursarError {
  const advice = ADVICE[reason.split("(")[0] ?? ""];
  return new BursarError("transaction-failed", `The contract refuses: ${reason}`, { value: reason }, advice);
}
