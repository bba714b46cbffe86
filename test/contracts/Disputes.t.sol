// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IArbitrator} from "../../contracts/interfaces/IArbitrator.sol";
import {Delivery, Hold, IDisputeModule, Purchase, Quote} from "../../contracts/interfaces/IDisputeModule.sol";
import {Receipt} from "../../contracts/interfaces/Messages.sol";
import {Disputes} from "../../contracts/modules/Disputes.sol";
import {SignatureTest} from "./SignatureTest.sol";

/// @title A dispute is about what agent and processor signed, and is decided by what the payee signed
/// @dev The test is the owner of every mandate, and the escrow, in which every hold has plenty.
contract DisputesTest is SignatureTest {
    bytes32 private constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(address agent,uint64 seq,address payee,uint40 amount,bytes32 ref,bytes32 head,uint64 settleBy,"
        "uint64 logIndex)"
    );
    bytes32 private constant QUOTE_TYPEHASH = keccak256(
        "Quote(address payee,uint40 amount,bytes32 ref,string host,string category,uint64 expiresAt)"
    );
    bytes32 private constant DELIVERY_TYPEHASH = keccak256(
        "Delivery(address agent,uint64 seq,bytes32 ref,bytes32 bodyHash,uint64 deliveredAt)"
    );

    Disputes private _disputes;
    bytes32 private _paid;

    function setUp() public override {
        super.setUp();
        _disputes = new Disputes(
            _registry,
            IArbitrator(address(this)),
            "",
            IDisputeModule.Deadlines(1 hours, 2 days, 1 days, 14 days)
        );
    }

    /// @notice Both keys: one signature is right, the other as `form` says.
    function testFuzz_files_what_agent_and_processor_signed(
        uint256 agentKey,
        uint256 processorKey,
        Purchase memory purchase,
        uint8 form,
        bool ofProcessor,
        uint256 noise
    ) external {
        Hold memory hold = _holdOf(agentKey, processorKey, address(0xbeef), purchase);
        Form chosen = _formOf(form);
        _sign(
            purchase,
            agentKey,
            ofProcessor ? Form.Right : chosen,
            processorKey,
            ofProcessor ? chosen : Form.Right,
            noise
        );
        _call(
            address(_disputes),
            abi.encodeCall(_disputes.file, (IDisputeModule.Kind.Other, hold, purchase, bytes32(0))),
            chosen
        );
    }

    function testFuzz_refunds_above_the_quote_that_the_payee_signed(
        uint256 payeeKey,
        Quote memory quote,
        Purchase memory purchase,
        uint8 form,
        uint256 noise
    ) external {
        Hold memory hold = _holdOf(1, 2, _addressOf(payeeKey), purchase);
        _sign(purchase, 1, Form.Right, 2, Form.Right, noise);
        quote.payee = noise % 2 == 0 ? hold.payee : purchase.receipt.payee;
        quote.ref = purchase.receipt.ref;
        quote.amount %= purchase.receipt.amount;
        quote.expiresAt |= uint64(1 << 63);
        bytes32 message = _hashQuote(quote);
        bytes memory signature = _signature(_formOf(form), payeeKey, message, _otherQuote(quote, noise), noise);
        _call(
            address(_disputes),
            abi.encodeCall(_disputes.fileOverQuote, (hold, purchase, quote, signature, bytes32(0))),
            _formOf(form)
        );
    }

    function testFuzz_is_answered_by_the_delivery_that_the_payee_signed(
        uint256 payeeKey,
        Delivery memory delivery,
        Purchase memory purchase,
        uint8 form,
        uint256 noise
    ) external {
        Hold memory hold = _holdOf(1, 2, _addressOf(payeeKey), purchase);
        _sign(purchase, 1, Form.Right, 2, Form.Right, noise);
        uint256 id = _disputes.file(IDisputeModule.Kind.NotDelivered, hold, purchase, bytes32(0));
        (delivery.agent, delivery.seq, delivery.ref) = (hold.agent, purchase.receipt.seq, purchase.receipt.ref);
        delivery.deliveredAt %= uint64(NOW);
        bytes32 message = _hashDelivery(delivery);
        bytes memory signature = _signature(_formOf(form), payeeKey, message, _otherDelivery(delivery, noise), noise);
        _call(address(_disputes), abi.encodeCall(_disputes.answerDelivery, (id, delivery, signature)), _formOf(form));
    }

    /// @notice Plays {IEscrow.pay}.
    function pay(address, bytes32, address, uint256) external {}

    /// @notice Plays {IClaims.paidOf}: every purchase was paid by a claim.
    function paidOf(address, uint64) external view returns (bytes32) {
        return _paid;
    }

    /// @notice Plays {IEscrow.accountOf}.
    function accountOf(address controller, bytes32 salt) external pure returns (address) {
        return address(uint160(uint256(keccak256(abi.encode(controller, salt)))));
    }

    /// @notice Plays {IEscrow.balanceOf}.
    function balanceOf(address, address) external pure returns (uint256) {
        return 1 << 60;
    }

    /// @notice Plays {IEscrow.unitScale}.
    function unitScale(address) external pure returns (uint256) {
        return 1;
    }

    /// @dev Opens a mandate, and leaves of a random purchase what can be disputed under it.
    function _holdOf(
        uint256 agentKey,
        uint256 processorKey,
        address payee,
        Purchase memory purchase
    ) private returns (Hold memory hold) {
        _receiptKey = _addressOf(processorKey);
        hold = Hold(_open(address(this), 0, agentKey), payee, 1 days);
        Receipt memory receipt = purchase.receipt;
        receipt.agent = hold.agent;
        receipt.payee = _disputes.holdOf(hold.agent, hold.payee, hold.holdback);
        receipt.amount = receipt.amount == 0 ? 1 : receipt.amount;
        receipt.settleBy = uint64(NOW + (receipt.settleBy % 1 hours));
        receipt.seq |= 1;
        _paid = keccak256(
            abi.encode(receipt.agent, receipt.seq, receipt.head, receipt.payee, receipt.amount, receipt.ref)
        );
    }

    function _sign(
        Purchase memory purchase,
        uint256 agentKey,
        Form agentForm,
        uint256 processorKey,
        Form processorForm,
        uint256 noise
    ) private view {
        Receipt memory receipt = purchase.receipt;
        bytes32 payment = _hashPurchase(purchase);
        bytes32 receiptHash = _hashReceipt(receipt);
        // What both sign differs in what only one of them does.
        uint64 flip = uint64(1 << ((noise >> 248) % 64));
        purchase.spent ^= flip;
        purchase.agentSignature = _signature(agentForm, agentKey, payment, _hashPurchase(purchase), noise);
        purchase.spent ^= flip;
        receipt.logIndex ^= flip;
        purchase.processorSignature = _signature(
            processorForm,
            processorKey,
            receiptHash,
            _hashReceipt(receipt),
            noise
        );
        receipt.logIndex ^= flip;
    }

    function _hashPurchase(Purchase memory purchase) private pure returns (bytes32) {
        Receipt memory receipt = purchase.receipt;
        bytes32 lineHash = keccak256(abi.encode(LINE_TYPEHASH, receipt.payee, receipt.amount, receipt.ref));
        return _hashPayment(receipt.seq, purchase.spent, receipt.head, lineHash);
    }

    function _hashReceipt(Receipt memory receipt) private pure returns (bytes32) {
        return
            keccak256(
                bytes.concat(
                    abi.encode(RECEIPT_TYPEHASH, receipt.agent, receipt.seq, receipt.payee, receipt.amount),
                    abi.encode(receipt.ref, receipt.head, receipt.settleBy, receipt.logIndex)
                )
            );
    }

    function _hashQuote(Quote memory quote) private pure returns (bytes32) {
        return
            keccak256(
                bytes.concat(
                    abi.encode(QUOTE_TYPEHASH, quote.payee, quote.amount, quote.ref),
                    abi.encode(keccak256(bytes(quote.host)), keccak256(bytes(quote.category)), quote.expiresAt)
                )
            );
    }

    function _otherQuote(Quote memory quote, uint256 noise) private pure returns (bytes32) {
        uint256 member = noise % 6;
        return
            _hashQuote(
                Quote({
                    payee: member == 0 ? address(uint160(quote.payee) ^ 1) : quote.payee,
                    amount: member == 1 ? quote.amount + 1 : quote.amount,
                    ref: member == 2 ? quote.ref ^ bytes32(uint256(1)) : quote.ref,
                    host: member == 3 ? string.concat(quote.host, "x") : quote.host,
                    category: member == 4 ? string.concat(quote.category, "x") : quote.category,
                    expiresAt: member == 5 ? quote.expiresAt ^ 1 : quote.expiresAt
                })
            );
    }

    function _hashDelivery(Delivery memory delivery) private pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    DELIVERY_TYPEHASH,
                    delivery.agent,
                    delivery.seq,
                    delivery.ref,
                    delivery.bodyHash,
                    delivery.deliveredAt
                )
            );
    }

    function _otherDelivery(Delivery memory delivery, uint256 noise) private pure returns (bytes32) {
        uint256 member = noise % 5;
        return
            _hashDelivery(
                Delivery({
                    agent: member == 0 ? address(uint160(delivery.agent) ^ 1) : delivery.agent,
                    seq: member == 1 ? delivery.seq ^ 1 : delivery.seq,
                    ref: member == 2 ? delivery.ref ^ bytes32(uint256(1)) : delivery.ref,
                    bodyHash: member == 3 ? delivery.bodyHash ^ bytes32(uint256(1)) : delivery.bodyHash,
                    deliveredAt: member == 4 ? delivery.deliveredAt ^ 1 : delivery.deliveredAt
                })
            );
    }
}
