// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "./Batch.sol";
import {IBatchVerifier} from "./IBatchVerifier.sol";
import {IMandateRegistry} from "./IMandateRegistry.sol";

/// @title How payments settle
/// @notice Settles thousands of payments with one proof. The registry checks what each mandate permits; this contract
/// checks that the rows and credits of the batch are those that the proof speaks about.
interface ISettlement {
    /// @notice A batch was settled.
    /// @param transcript binds all of the batch: rows, stored positions, credits, circuit and commitment.
    /// @param total units moved.
    /// @param rows mandates in the batch.
    /// @param credits payees in the batch.
    event BatchSettled(
        uint256 indexed batchId,
        address indexed processor,
        address indexed token,
        bytes32 circuitId,
        bytes32 transcript,
        uint256 total,
        uint256 rows,
        uint256 credits
    );
    /// @notice The agent's ledger is settled up to payment `seq`, in total `spent` units, with this head.
    event MandateSettled(address indexed agent, uint256 indexed batchId, uint64 seq, uint64 spent, uint256 head);
    /// @notice A verifier was built in. Only the constructor emits it.
    event VerifierAdded(bytes32 indexed circuitId, IBatchVerifier verifier);

    error NoVerifiers();
    error DuplicateCircuit(bytes32 circuitId);
    error UnknownCircuit(bytes32 circuitId);
    /// @notice The rows and credits do not evaluate to what the proof claims at the challenge.
    error EvaluationMismatch(uint256 evaluation, uint256 challenge);
    error InvalidProof(bytes32 circuitId);

    /// @notice Settles a batch of the caller, the processor of all its mandates. Its agents must be strictly
    /// increasing, its mandates of one token.
    /// @param circuitId which circuit, and so which verifier, the proof is for.
    /// @param credits what each payee gets, in sum what the rows debit.
    /// @param commitment C: the proof's commitment to every row value and every amount.
    /// @param evaluation T: what rows and amounts evaluate to at the challenge.
    /// @param proof a (x, y), b (x1, x0, y1, y0), c (x, y), as the pairing precompile takes them.
    /// @return batchId the number of the batch, from 1.
    function settle(
        bytes32 circuitId,
        Row[] calldata rows,
        Credit[] calldata credits,
        uint256 commitment,
        uint256 evaluation,
        uint256[8] calldata proof
    ) external returns (uint256 batchId);

    /// @notice How many batches were settled.
    function batchCount() external view returns (uint256);

    /// @notice The transcript of a settled batch, 0 if there is none: the checkpoint that shows what it contained.
    function transcriptOf(uint256 batchId) external view returns (bytes32);

    /// @notice The verifier of a circuit, the zero address if it is unknown.
    function verifierOf(bytes32 circuitId) external view returns (IBatchVerifier);

    function registry() external view returns (IMandateRegistry);
}
