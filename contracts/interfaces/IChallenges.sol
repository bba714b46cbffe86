// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IInclusionVerifier} from "./IInclusionVerifier.sol";
import {IMandateRegistry} from "./IMandateRegistry.sol";
import {IProcessorRegistry} from "./IProcessorRegistry.sol";
import {ISettlement} from "./ISettlement.sol";
import {Receipt} from "./Messages.sol";
import {ReceiptedPayment} from "./ReceiptedPayment.sol";

/// @title When a processor contradicts itself
/// @notice Two receipts on one payment number slash at once. A settled ledger that leaves out a receipted payment leaves no
/// second receipt: whoever holds the receipt challenges, with a deposit, and the processor has the cure
/// window to show by a proof of the `Inclusion` circuit that the line stands in the part of the ledger that one batch
/// settled. Without an answer the bond is slashed, and the payee is among its victims. The proof reveals no other line.
interface IChallenges {
    enum Status {
        None,
        Open,
        /// The line is in the settled ledger.
        Answered,
        /// Nobody showed it in time.
        Upheld
    }

    struct Challenge {
        Status status;
        uint40 answerableUntil;
        address challenger;
        /// Base units.
        uint256 deposit;
    }

    /// @notice What a batch left on chain as its transcript, and which of its rows to look at.
    struct SettledRow {
        uint256 batchId;
        bytes32 circuitId;
        uint256 commitment;
        /// Seven words a row: agent, seq, base, head, newBase, policyRoot, packed.
        uint256[] rowWords;
        bytes32 creditsHash;
        /// From 0.
        uint256 row;
    }

    event Equivocation(address indexed processor, address indexed agent, uint64 seq, address reporter);
    event ChallengeOpened(
        bytes32 indexed id,
        address indexed agent,
        address indexed processor,
        uint64 seq,
        uint40 answerableUntil
    );
    event ChallengeAnswered(bytes32 indexed id, uint256 batchId);
    event ChallengeUpheld(bytes32 indexed id, address payee, uint40 amount);

    error NoVerifiers();
    error NotTwoReceipts(address agent, uint64 seq);
    error ChallengeExists(bytes32 id);
    /// @notice It is not settled yet: claim it when its time is over.
    error NotSettled(address agent, uint64 seq, uint64 settled);
    error ChallengeNotOpen(bytes32 id);
    error AnswerTooLate(bytes32 id, uint256 time, uint256 until);
    error AnswerStillPossible(bytes32 id, uint256 time, uint256 until);
    error WrongTranscript(uint256 batchId, bytes32 transcript, bytes32 expected);
    /// @notice The row is another agent's, or settles other payment numbers: `from` to `to`.
    error WrongRow(address agent, uint64 seq, uint256 from, uint256 to);
    error UnknownCircuit(bytes32 circuitId);
    error InvalidProof(bytes32 circuitId);

    /// @notice Slashes a processor that gave two receipts for different payments on one number of a mandate that names it.
    function reportEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice Challenges the settled ledger with a receipted payment, until one cure window after the claim window of its
    /// mandate, since its last second can still settle. Takes a deposit of 1,000,000 units of the mandate's token, which the
    /// caller has approved; it comes back as credit if the challenge is upheld, else it is the processor's.
    /// @dev Reverts with the errors above, those of {ReceiptedPayments}, or of {IMandateRegistry} for a payment above the
    /// payment cap or the budget, or off the payee list.
    function challenge(ReceiptedPayment calldata payment) external returns (bytes32 id);

    /// @notice Shows that the line of a challenge is in what a batch settled. Anyone may call it.
    /// @param payment as it was challenged; its signatures are not read again.
    function answer(
        ReceiptedPayment calldata payment,
        SettledRow calldata settled,
        bytes32 inclusionCircuit,
        uint256[8] calldata proof
    ) external;

    /// @notice Ends a challenge that nobody answered. Anyone may call it.
    function uphold(ReceiptedPayment calldata payment) external;

    function challengeOf(bytes32 id) external view returns (Challenge memory);

    /// @notice The verifier of an Inclusion circuit, the zero address if it is unknown.
    function verifierOf(bytes32 circuitId) external view returns (IInclusionVerifier);

    function registry() external view returns (IMandateRegistry);

    function settlement() external view returns (ISettlement);

    function processors() external view returns (IProcessorRegistry);
}
