// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "../../contracts/interfaces/Batch.sol";
import {Mandate} from "../../contracts/interfaces/Messages.sol";
import {SignatureTest} from "./SignatureTest.sol";

/// @title The registry takes exactly what was signed, by exactly who had to sign it
contract MandateRegistryTest is SignatureTest {
    bytes32 private constant REVOCATION_TYPEHASH = keccak256("Revocation(address agent,uint64 afterSeq)");
    bytes32 private constant CLOSE_TYPEHASH = keccak256("Close(address agent,uint64 seq)");

    /// @notice P6: one signature of the two is right, the other as `form` says.
    function testFuzz_opens_what_owner_and_agent_signed(
        uint256 ownerKey,
        uint256 agentKey,
        Mandate memory mandate,
        uint8 form,
        bool ofAgent,
        uint256 noise
    ) external {
        _bound(mandate, ownerKey, agentKey);
        bytes32 message = _hashMandate(mandate);
        bytes32 other = _hashMandate(_altered(mandate, noise));
        Form chosen = _formOf(form);
        bytes memory byOwner = _signature(ofAgent ? Form.Right : chosen, ownerKey, message, other, noise);
        bytes memory byAgent = _signature(ofAgent ? chosen : Form.Right, agentKey, message, other, noise);
        _call(
            address(_registry),
            abi.encodeCall(_registry.open, (_unaltered(mandate, noise), byOwner, byAgent)),
            chosen
        );
    }

    /// @notice P6 no_agent_signature_no_debit.
    function testFuzz_settles_a_row_that_the_agent_signed(
        uint256 agentKey,
        Row memory row,
        uint8 form,
        uint256 noise
    ) external {
        Form chosen = _formOf(form);
        // These differ in their length, which a row has not.
        if (chosen == Form.Compact || chosen == Form.TooLong) chosen = Form.OtherMessage;
        row.agent = _open(address(this), 0, agentKey);
        row.count = row.count == 0 ? 1 : row.count;
        row.debit %= BUDGET + 1;
        (row.head, row.newBase) = (row.head % FIELD, row.newBase % FIELD);
        bytes32 message = _hashPayment(row.count, row.debit, bytes32(row.head), row.lineHash);
        bytes memory signature = _signature(chosen, agentKey, message, _otherPayment(row, noise), noise);
        (row.r, row.s) = abi.decode(signature, (bytes32, bytes32));
        row.v = uint8(signature[64]);

        Row[] memory rows = new Row[](1);
        rows[0] = row;
        _call(address(_registry), abi.encodeCall(_registry.settle, (address(0x9), rows, new Credit[](0))), chosen);
    }

    function testFuzz_revokes_what_the_owner_signed(
        uint256 ownerKey,
        uint256 agentKey,
        uint64 afterSeq,
        uint8 form,
        uint256 noise
    ) external {
        address agent = _open(_addressOf(ownerKey), ownerKey, agentKey);
        bytes32 message = keccak256(abi.encode(REVOCATION_TYPEHASH, agent, afterSeq));
        bytes32 other =
            noise % 2 == 0
                ? keccak256(abi.encode(REVOCATION_TYPEHASH, agent, afterSeq ^ uint64(1 << (noise % 64))))
                : keccak256(abi.encode(CLOSE_TYPEHASH, agent, afterSeq));
        bytes memory signature = _signature(_formOf(form), ownerKey, message, other, noise);
        _call(
            address(_registry),
            abi.encodeCall(_registry.revokeWithSignature, (agent, afterSeq, signature)),
            _formOf(form)
        );
    }

    /// @notice One signature of the two is right, the other as `form` says.
    function testFuzz_closes_together_what_both_signed(
        uint256 ownerKey,
        uint256 agentKey,
        uint256 processorKey,
        uint8 form,
        bool ofProcessor,
        uint256 noise
    ) external {
        address agent = _open(_addressOf(ownerKey), ownerKey, agentKey);
        _receiptKey = _addressOf(processorKey);
        bytes32 message = keccak256(abi.encode(CLOSE_TYPEHASH, agent, uint64(0)));
        bytes32 other = keccak256(abi.encode(CLOSE_TYPEHASH, agent, uint64(1 + (noise >> 200))));
        Form chosen = _formOf(form);
        bytes memory byOwner = _signature(ofProcessor ? Form.Right : chosen, ownerKey, message, other, noise);
        bytes memory byProcessor = _signature(ofProcessor ? chosen : Form.Right, processorKey, message, other, noise);
        _call(address(_registry), abi.encodeCall(_registry.closeTogether, (agent, 0, byOwner, byProcessor)), chosen);
    }

    /// @dev Leaves of a random mandate what its owner may sign.
    function _bound(Mandate memory mandate, uint256 ownerKey, uint256 agentKey) private pure {
        (mandate.owner, mandate.agent) = (_addressOf(ownerKey), _addressOf(agentKey));
        mandate.budget |= 1;
        uint256 most = mandate.budget < CAP ? mandate.budget : CAP;
        mandate.paymentCap = uint40((mandate.paymentCap % most) + 1);
        mandate.validUntil = uint64(NOW + 1 + (mandate.validUntil % 90 days));
        if (mandate.processor == address(0)) mandate.processor = address(1);
        mandate.policyRoot = bytes32(uint256(mandate.policyRoot) % FIELD);
        address[] memory payees = new address[](mandate.payees.length % 9);
        for (uint256 i = 0; i < payees.length; ++i) payees[i] = address(uint160(mandate.payees[i]) | (1 << 159));
        mandate.payees = payees;
        mandate.token = address(uint160(mandate.token) & (type(uint160).max >> 1));
    }

    /// @dev Changes one member by one bit; {_unaltered} changes it back, since the struct is the same in memory.
    function _altered(Mandate memory mandate, uint256 noise) private pure returns (Mandate memory) {
        uint256 member = (noise >> 16) % 10;
        uint256 bit = 1 << (noise >> 248);
        if (member == 0) mandate.owner = address(uint160(mandate.owner) ^ _narrow160(noise));
        if (member == 1) mandate.agent = address(uint160(mandate.agent) ^ _narrow160(noise));
        if (member == 2) mandate.token = address(uint160(mandate.token) ^ _narrow160(noise));
        if (member == 3) mandate.budget ^= uint64(1 << ((noise >> 248) % 64));
        if (member == 4) mandate.paymentCap ^= uint40(1 << ((noise >> 248) % 40));
        if (member == 5) mandate.validUntil ^= uint64(1 << ((noise >> 248) % 64));
        if (member == 6) mandate.processor = address(uint160(mandate.processor) ^ _narrow160(noise));
        if (member == 7 && mandate.payees.length == 0) member = 8;
        if (member == 7) mandate.payees[0] = address(uint160(mandate.payees[0]) ^ _narrow160(noise));
        if (member == 8) mandate.policyRoot ^= bytes32(bit);
        if (member == 9) mandate.termsHash ^= bytes32(bit);
        return mandate;
    }

    function _unaltered(Mandate memory mandate, uint256 noise) private pure returns (Mandate memory) {
        return _altered(mandate, noise);
    }

    function _narrow160(uint256 noise) private pure returns (uint160) {
        return uint160(1 << ((noise >> 248) % 160));
    }

    function _otherPayment(Row memory row, uint256 noise) private pure returns (bytes32) {
        uint256 bit = 1 << (noise >> 248);
        uint64 narrow = uint64(1 << ((noise >> 248) % 64));
        uint256 member = noise % 4;
        return
            _hashPayment(
                member == 0 ? row.count ^ narrow : row.count,
                member == 1 ? row.debit ^ narrow : row.debit,
                bytes32(member == 2 ? row.head ^ bit : row.head),
                member == 3 ? row.lineHash ^ bytes32(bit) : row.lineHash
            );
    }
}
