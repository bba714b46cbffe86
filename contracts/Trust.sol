// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Challenges} from "./Challenges.sol";
import {Claims} from "./Claims.sol";
import {ProcessorRegistry} from "./ProcessorRegistry.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";
import {IInclusionVerifier} from "./interfaces/IInclusionVerifier.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {ISettlement} from "./interfaces/ISettlement.sol";
import {Creation} from "./lib/Creation.sol";

/// @title Trust
/// @notice Deploys what stands behind receipts in one transaction: bonds, claims and challenges, bound to the core that
/// {Bursar} deploys next, at an address that the deployer knows in advance. {Bursar} refuses a Trust that is not its own.
contract Trust {
    /// @notice The {Bursar} that this is for.
    address public immutable bursar;
    ProcessorRegistry public immutable processors;
    Claims public immutable claims;
    Challenges public immutable challenges;

    constructor(address bursar_, IInclusionVerifier[] memory verifiers) {
        bursar = bursar_;
        IEscrow escrow = IEscrow(Creation.addressOf(bursar_, 1));
        IMandateRegistry registry = IMandateRegistry(Creation.addressOf(bursar_, 2));
        ISettlement settlement = ISettlement(Creation.addressOf(bursar_, 3));
        processors = new ProcessorRegistry(
            escrow,
            registry,
            Creation.addressOf(address(this), 2),
            Creation.addressOf(address(this), 3)
        );
        claims = new Claims(registry, processors);
        challenges = new Challenges(escrow, registry, settlement, processors, verifiers);
    }
}
