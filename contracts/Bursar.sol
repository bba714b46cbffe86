// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BatchSettlement} from "./BatchSettlement.sol";
import {DirectSettlement} from "./DirectSettlement.sol";
import {Escrow} from "./Escrow.sol";
import {MandateRegistry} from "./MandateRegistry.sol";
import {IBatchVerifier} from "./interfaces/IBatchVerifier.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";

/// @title Bursar
/// @notice Deploys the core in one transaction, each contract with the addresses of the others built in. It holds no
/// funds and has no power over them.
contract Bursar {
    Escrow public immutable escrow;
    MandateRegistry public immutable registry;
    BatchSettlement public immutable settlement;
    DirectSettlement public immutable direct;

    /// @param windows the time spans, within the ranges of {IMandateRegistry.Windows}.
    /// @param verifiers one for each circuit that may settle.
    constructor(IMandateRegistry.Windows memory windows, IBatchVerifier[] memory verifiers) {
        escrow = new Escrow(_creation(2));
        registry = new MandateRegistry(escrow, _creation(3), _creation(4), windows);
        settlement = new BatchSettlement(registry, verifiers);
        direct = new DirectSettlement(registry);
    }

    /// @dev The address of this contract's n-th creation: keccak256(rlp([address, n])), n below 128.
    function _creation(uint8 n) private view returns (address) {
        return address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", address(this), n)))));
    }
}
