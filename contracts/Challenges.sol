// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IChallenges} from "./interfaces/IChallenges.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IInclusionVerifier} from "./interfaces/IInclusionVerifier.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "./interfaces/IProcessorRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Line, Receipt} from "./interfaces/Messages.sol";
import {ReceiptedPayment} from "./interfaces/ReceiptedPayment.sol";
import {Evaluation} from "./lib/Evaluation.sol";
import {Ledger} from "./lib/Ledger.sol";
import {ReceiptedPayments} from "./lib/ReceiptedPayments.sol";
import {Transcript} from "./lib/Transcript.sol";
import {TypedHashes} from "./lib/TypedHashes.sol";

/// @title Challenges
contract Challenges is IChallenges, ReentrancyGuardTransient {
    using ReceiptedPayments for ReceiptedPayment;
    using SafeERC20 for IERC20;

    uint256 private constant DEPOSIT_UNITS = 1e6;

    /// @inheritdoc IChallenges
    IMandateRegistry public immutable registry;
    /// @inheritdoc IChallenges
    ISettlement public immutable settlement;
    /// @inheritdoc IChallenges
    IProcessorRegistry public immutable processors;
    IEscrow private immutable _escrow;

    /// @inheritdoc IChallenges
    mapping(bytes32 circuitId => IInclusionVerifier) public verifierOf;
    mapping(bytes32 id => Challenge) private _challenges;

    constructor(
        IEscrow escrow,
        IMandateRegistry registry_,
        ISettlement settlement_,
        IProcessorRegistry processors_,
        IInclusionVerifier[] memory verifiers
    ) {
        if (verifiers.length == 0) revert NoVerifiers();
        _escrow = escrow;
        registry = registry_;
        settlement = settlement_;
        processors = processors_;
        for (uint256 i = 0; i < verifiers.length; ++i) {
            verifierOf[verifiers[i].circuitId()] = verifiers[i];
        }
    }

    /// @inheritdoc IChallenges
    function reportEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external {
        if (first.agent != second.agent || first.seq != second.seq || _sameLine(first, second)) {
            revert NotTwoReceipts(first.agent, first.seq);
        }
        (address processor, address token, , , , ) = registry.claimsOf(first.agent);
        bytes32 separator = registry.domainSeparator();
        ReceiptedPayments.requireReceipt(processors, separator, processor, first, firstSignature);
        ReceiptedPayments.requireReceipt(processors, separator, processor, second, secondSignature);

        emit Equivocation(processor, first.agent, first.seq, msg.sender);
        processors.slash(processor, token, msg.sender);
    }

    /// @inheritdoc IChallenges
    function challenge(ReceiptedPayment calldata payment) external nonReentrant returns (bytes32 id) {
        uint40 cure = registry.windows().cure;
        ReceiptedPayments.Context memory context = ReceiptedPayments.verify(registry, processors, payment, cure);
        if (payment.seq > context.settled) revert NotSettled(payment.agent, payment.seq, context.settled);
        _requireLimits(payment);
        id = payment.idOf();
        if (_challenges[id].status != Status.None) revert ChallengeExists(id);

        uint40 until = uint40(block.timestamp) + cure;
        _challenges[id] = Challenge(Status.Open, until, msg.sender, 0);
        emit ChallengeOpened(id, payment.agent, context.processor, payment.seq, until);
        _challenges[id].deposit = _takeDeposit(context.token, id);
    }

    /// @inheritdoc IChallenges
    function answer(
        ReceiptedPayment calldata payment,
        SettledRow calldata settled,
        bytes32 inclusionCircuit,
        uint256[8] calldata proof
    ) external {
        bytes32 id = payment.idOf();
        Challenge storage open = _requireOpen(id);
        if (block.timestamp > open.answerableUntil) revert AnswerTooLate(id, block.timestamp, open.answerableUntil);
        IInclusionVerifier verifier = verifierOf[inclusionCircuit];
        if (address(verifier) == address(0)) revert UnknownCircuit(inclusionCircuit);
        _requireTranscript(settled);
        if (!verifier.verify(proof, _signals(payment, settled))) revert InvalidProof(inclusionCircuit);

        open.status = Status.Answered;
        emit ChallengeAnswered(id, settled.batchId);
        (address processor, address token, , , , ) = registry.claimsOf(payment.agent);
        _payDeposit(token, id, processor, open.deposit);
    }

    /// @inheritdoc IChallenges
    function uphold(ReceiptedPayment calldata payment) external {
        bytes32 id = payment.idOf();
        Challenge storage open = _requireOpen(id);
        if (block.timestamp <= open.answerableUntil) {
            revert AnswerStillPossible(id, block.timestamp, open.answerableUntil);
        }
        open.status = Status.Upheld;
        emit ChallengeUpheld(id, payment.line.payee, payment.line.amount);
        (address processor, address token, , , , ) = registry.claimsOf(payment.agent);
        processors.slash(processor, token, open.challenger);
        processors.addVictim(processor, token, id, payment.line.payee, payment.line.amount);
        _payDeposit(token, id, open.challenger, open.deposit);
    }

    /// @inheritdoc IChallenges
    function challengeOf(bytes32 id) external view returns (Challenge memory) {
        return _challenges[id];
    }

    /// @dev Into a sub-account of its own, so that one deposit never pays another's; of a token that takes a fee, what
    /// arrives.
    function _takeDeposit(address token, bytes32 id) private returns (uint256) {
        uint256 amount = DEPOSIT_UNITS * _escrow.unitScale(token);
        uint256 before = IERC20(token).balanceOf(address(this));
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        uint256 received = IERC20(token).balanceOf(address(this)) - before;
        IERC20(token).forceApprove(address(_escrow), received);
        return _escrow.deposit(token, received, _escrow.accountOf(address(this), id));
    }

    /// @dev What no batch and no claim would pay, whoever signed it, takes no share of a bond.
    function _requireLimits(ReceiptedPayment calldata payment) private view {
        address agent = payment.agent;
        IMandateRegistry.MandateRecord memory mandate = registry.mandateOf(agent);
        uint40 amount = payment.line.amount;
        if (amount > mandate.paymentCap) revert IMandateRegistry.PaymentAboveCap(agent, amount, mandate.paymentCap);
        if (payment.spent > mandate.budget) {
            revert IMandateRegistry.BudgetExceeded(agent, payment.spent, mandate.budget);
        }
        address[] calldata payees = payment.payees;
        if (TypedHashes.hashPayees(payees) != mandate.payeesHash) revert IMandateRegistry.PayeesMismatch(agent);
        bool listed = payees.length == 0;
        for (uint256 i = 0; i < payees.length && !listed; ++i) {
            listed = payees[i] == payment.line.payee;
        }
        if (!listed) revert IMandateRegistry.PayeeNotAllowed(agent, payment.line.payee);
    }

    function _payDeposit(address token, bytes32 id, address to, uint256 amount) private {
        _escrow.pay(token, id, to, amount);
    }

    function _requireOpen(bytes32 id) private view returns (Challenge storage open) {
        open = _challenges[id];
        if (open.status != Status.Open) revert ChallengeNotOpen(id);
    }

    function _requireTranscript(SettledRow calldata settled) private view {
        bytes32 expected = settlement.transcriptOf(settled.batchId);
        bytes32 transcript = Transcript.compute(
            address(settlement),
            settled.circuitId,
            settled.commitment,
            keccak256(abi.encodePacked(settled.rowWords)),
            settled.creditsHash
        );
        if (expected == bytes32(0) || transcript != expected) {
            revert WrongTranscript(settled.batchId, transcript, expected);
        }
    }

    /// @dev base, head, line, index: the line's place among those of the row's pages, the skipped ones included.
    function _signals(
        ReceiptedPayment calldata payment,
        SettledRow calldata settled
    ) private pure returns (uint256[4] memory) {
        uint256 first = settled.row * Evaluation.ROW_WORDS;
        uint256[] calldata words = settled.rowWords;
        uint64 start = uint64(words[first + 1]);
        uint256 last = start + Ledger.countOf(words[first + 6]);
        if (words[first] != uint160(payment.agent) || payment.seq <= start || payment.seq > last) {
            revert WrongRow(payment.agent, payment.seq, start + 1, last);
        }
        uint256 index = payment.seq - 1 - (start - Ledger.offsetOf(start));
        return [words[first + 2], words[first + 3], _lineElement(payment.line), index];
    }

    function _lineElement(Line calldata line) private pure returns (uint256) {
        return uint256(uint160(line.payee)) | (uint256(line.amount) << 160);
    }

    function _sameLine(Receipt calldata first, Receipt calldata second) private pure returns (bool) {
        return
            first.payee == second.payee &&
            first.amount == second.amount &&
            first.ref == second.ref &&
            first.head == second.head;
    }
}
