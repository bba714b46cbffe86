// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IClaims} from "./interfaces/IClaims.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "./interfaces/IProcessorRegistry.sol";
import {ReceiptedPayment} from "./interfaces/ReceiptedPayment.sol";
import {ReceiptedPayments} from "./lib/ReceiptedPayments.sol";

/// @title Claims
/// @dev Calls registry and processors only, which call the escrow only, which calls no token here: nothing re-enters.
contract Claims is IClaims {
    using ReceiptedPayments for ReceiptedPayment;

    uint256 private constant PENALTY_SHARE = 10;
    uint256 private constant PENALTY_UNITS = 0.5e6;

    /// @inheritdoc IClaims
    IMandateRegistry public immutable registry;
    /// @inheritdoc IClaims
    IProcessorRegistry public immutable processors;

    mapping(bytes32 id => Claim) private _claims;
    /// @inheritdoc IClaims
    mapping(address agent => mapping(uint64 seq => bytes32)) public paidOf;

    constructor(IMandateRegistry registry_, IProcessorRegistry processors_) {
        registry = registry_;
        processors = processors_;
    }

    /// @inheritdoc IClaims
    function file(ReceiptedPayment[] calldata payments) external {
        if (payments.length == 0) revert NoClaims();
        address processor = address(0);
        address token = address(0);
        uint256 missed = 0;
        uint256 penalties = 0;
        for (uint256 i = 0; i < payments.length; ++i) {
            ReceiptedPayment calldata payment = payments[i];
            ReceiptedPayments.Context memory context = ReceiptedPayments.verify(registry, processors, payment);
            if (i == 0) (processor, token) = (context.processor, context.token);
            if (context.processor != processor || context.token != token) {
                revert MixedClaims(payment.agent, context.processor, context.token);
            }
            if (!_file(payment, context)) continue;
            uint256 penalty = payment.line.amount / PENALTY_SHARE;
            ++missed;
            penalties += penalty;
            processors.penalize(processor, token, payment.line.payee, penalty);
        }
        if (missed != 0 && penalties < PENALTY_UNITS) {
            processors.penalize(processor, token, msg.sender, PENALTY_UNITS - penalties);
        }
    }

    /// @inheritdoc IClaims
    function resolve(ReceiptedPayment[] calldata payments) external {
        for (uint256 i = 0; i < payments.length; ++i) {
            ReceiptedPayment calldata payment = payments[i];
            bytes32 id = payment.idOf();
            Claim storage claim = _claims[id];
            if (claim.status != Status.Filed) revert NotFiled(id);
            if (block.timestamp < claim.resolvableAt) {
                revert NotResolvable(id, block.timestamp, claim.resolvableAt);
            }
            _resolve(claim, id, payment);
        }
    }

    /// @inheritdoc IClaims
    function claimOf(bytes32 id) external view returns (Claim memory) {
        return _claims[id];
    }

    /// @return missed whether the processor owes a penalty for it.
    function _file(
        ReceiptedPayment calldata payment,
        ReceiptedPayments.Context memory context
    ) private returns (bool missed) {
        bytes32 id = payment.idOf();
        if (_claims[id].status != Status.None) revert AlreadyFiled(id);
        if (payment.seq <= context.settled) revert SettledAlready(payment.agent, payment.seq, context.settled);
        IMandateRegistry.Windows memory windows = registry.windows();
        uint256 claimableAt = uint256(payment.settleBy) + windows.grace;
        missed = block.timestamp > claimableAt;
        if (!missed && !context.abandoned) {
            revert NotMissed(payment.agent, payment.seq, block.timestamp, claimableAt);
        }

        uint40 resolvableAt = uint40(block.timestamp) + (context.abandoned ? 0 : windows.cure);
        address payee = payment.line.payee;
        uint40 amount = payment.line.amount;
        bool fromLock = registry.reserveClaim(payment.agent, payment.seq, payee, amount, payment.payees);
        _claims[id] = Claim(Status.Filed, fromLock, resolvableAt, amount, payee);
        emit ClaimFiled(id, payment.agent, payee, payment.seq, amount, resolvableAt);
    }

    function _resolve(Claim storage claim, bytes32 id, ReceiptedPayment calldata payment) private {
        (address processor, address token, uint64 settled, , , ) = registry.claimsOf(payment.agent);
        uint40 amount = claim.amount;
        bool cured = settled >= payment.seq;
        bool pay = claim.fromLock && !cured && paidOf[payment.agent][payment.seq] == 0;
        uint64 paid = claim.fromLock ? registry.endClaim(payment.agent, claim.payee, amount, pay) : 0;
        if (pay) paidOf[payment.agent][payment.seq] = id;

        Status status = Status.Cured;
        if (!cured) status = paid == amount ? Status.Paid : Status.Bonded;
        claim.status = status;
        emit ClaimResolved(id, payment.agent, status, paid);
        if (status == Status.Bonded) {
            processors.slash(processor, token, msg.sender);
            processors.addVictim(processor, token, id, claim.payee, amount - paid);
        }
    }
}
