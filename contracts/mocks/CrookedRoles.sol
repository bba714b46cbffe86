// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {ReceiptedPayment} from "../interfaces/ReceiptedPayment.sol";
import {KeyWallet} from "../modules/KeyWallet.sol";
import {PaidFeedback} from "../modules/PaidFeedback.sol";

/// @title An identity gate with one fault
/// @dev Not an {IIdentityGate} by type, since one fault is to write while it answers.
contract CrookedGate {
    enum Fault {
        None,
        /// Another answer for the registry than for who looks before.
        Partial,
        /// Counts who asks.
        Writes,
        /// Takes more gas than it is given.
        Heavy,
        /// Yes is 2.
        Vague,
        /// Claims every interface that there is.
        Boastful
    }

    Fault private immutable _fault;
    uint256 public asked;

    constructor(Fault fault) {
        _fault = fault;
    }

    function mayOpen(address, address, address, uint64) external returns (uint256) {
        return _answer();
    }

    function mayBePaid(address, address) external returns (uint256) {
        return _answer();
    }

    function supportsInterface(bytes4 interfaceId) external view returns (bool) {
        bytes4 own = this.mayOpen.selector ^ this.mayBePaid.selector;
        return _fault == Fault.Boastful || interfaceId == own || interfaceId == 0x01ffc9a7;
    }

    function _answer() private returns (uint256) {
        if (_fault == Fault.Partial) return msg.sender.code.length == 0 ? 0 : 1;
        if (_fault == Fault.Writes) ++asked;
        uint256 gasAtFirst = gasleft();
        while (_fault == Fault.Heavy && gasAtFirst - gasleft() < 250_000) {}
        return _fault == Fault.Vague ? 2 : 1;
    }
}

/// @title A wallet with one fault
contract CrookedWallet is KeyWallet {
    enum Fault {
        /// Takes what its key signed for any account.
        Unbound,
        /// Takes a signature's mirror image.
        Mirrored,
        /// Knows no interface.
        Mute
    }

    Fault private immutable _fault;

    constructor(Fault fault, address admin, address signer) KeyWallet(admin, signer) {
        _fault = fault;
    }

    function supportsInterface(bytes4 interfaceId) external view override returns (bool) {
        return
            _fault != Fault.Mute &&
            (interfaceId == 0x01ffc9a7 || interfaceId == 0x1626ba7e || interfaceId == 0x238ac933);
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) public view override returns (bytes4) {
        bytes4 answer = super.isValidSignature(hash, signature);
        if (answer == 0x1626ba7e || signature.length < 65) return answer;
        if (_fault == Fault.Unbound) {
            (address recovered, , ) = ECDSA.tryRecoverCalldata(hash, signature);
            return recovered == signer() ? bytes4(0x1626ba7e) : answer;
        }
        if (_fault == Fault.Mirrored && uint256(bytes32(signature[32:64])) > _half()) {
            return this.isValidSignature(hash, _mirror(signature));
        }
        return answer;
    }

    function _mirror(bytes calldata signature) private pure returns (bytes memory) {
        uint256 s = 2 * _half() + 1 - uint256(bytes32(signature[32:64]));
        bytes1 v = signature[64] == 0x1b ? bytes1(0x1c) : bytes1(0x1b);
        return bytes.concat(signature[:32], bytes32(s), v, signature[65:]);
    }

    /// @dev Half the order of secp256k1, rounded down.
    function _half() private pure returns (uint256) {
        return 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;
    }
}

/// @title Feedback of which one payment buys any number
contract RepeatedFeedback is PaidFeedback {
    constructor(IMandateRegistry registry_) PaidFeedback(registry_) {}

    function rate(
        ReceiptedPayment calldata payment,
        int128 value,
        string calldata tag1,
        string calldata tag2,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) public override returns (uint64 feedbackIndex) {
        isRated[payment.agent][payment.seq] = false;
        return super.rate(payment, value, tag1, tag2, feedbackURI, feedbackHash);
    }
}

/// @title Feedback that is always good
contract FlatteringFeedback is PaidFeedback {
    constructor(IMandateRegistry registry_) PaidFeedback(registry_) {}

    function getSummary(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2
    ) public view override returns (uint64 count, int128 summaryValue, uint8 summaryValueDecimals) {
        (count, summaryValue, summaryValueDecimals) = super.getSummary(agentId, clientAddresses, tag1, tag2);
        if (count > 0) summaryValue = 10_000;
    }
}

/// @title A contract that answers one call as it likes, and does everything else as the code behind it
/// @dev For suites that look at somebody's contract: its code takes the place of a real one's, which keeps its storage.
contract Tampered {
    address private immutable _behind;
    bytes4 private immutable _selector;
    uint256 private immutable _word;

    /// @param behind the code of the real one, at another address.
    constructor(address behind, bytes4 selector, uint256 word) {
        (_behind, _selector, _word) = (behind, selector, word);
    }

    // solhint-disable-next-line no-complex-fallback
    fallback() external payable {
        (address behind, uint256 word) = (_behind, _word);
        bool tampers = msg.sig == _selector;
        assembly {
            if tampers {
                mstore(0x00, word)
                return(0x00, 0x20)
            }
            calldatacopy(0x00, 0x00, calldatasize())
            let success := delegatecall(gas(), behind, 0x00, calldatasize(), 0x00, 0x00)
            returndatacopy(0x00, 0x00, returndatasize())
            if success {
                return(0x00, returndatasize())
            }
            revert(0x00, returndatasize())
        }
    }
}
