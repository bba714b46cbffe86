// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {BatchSettlement} from "./BatchSettlement.sol";
import {DirectSettlement} from "./DirectSettlement.sol";
import {Escrow} from "./Escrow.sol";
import {MandateRegistry} from "./MandateRegistry.sol";
import {Trust} from "./Trust.sol";
import {IBatchVerifier} from "./interfaces/IBatchVerifier.sol";
import {IIdentityGate} from "./interfaces/IIdentityGate.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {Creation} from "./lib/Creation.sol";

/// @title Bursar
/// @notice Deploys the core in one transaction, each contract with the addresses of the others built in. It holds no
/// funds and has no power over them.
contract Bursar {
    Escrow public immutable escrow;
    MandateRegistry public immutable registry;
    BatchSettlement public immutable settlement;
    DirectSettlement public immutable direct;
    Trust public immutable trust;

    error TrustOfAnother(Trust trust, address bursar);

    /// @param windows the time spans, within the ranges of {IMandateRegistry.Windows}.
    /// @param verifiers one for each circuit that may settle.
    /// @param trust_ made for this address.
    /// @param gate who is asked before a mandate is opened.
    constructor(
        IMandateRegistry.Windows memory windows,
        IBatchVerifier[] memory verifiers,
        Trust trust_,
        IIdentityGate gate
    ) {
        if (trust_.bursar() != address(this)) revert TrustOfAnother(trust_, trust_.bursar());
        trust = trust_;
        escrow = new Escrow(Creation.addressOf(address(this), 2));
        registry = new MandateRegistry(
            IMandateRegistry.Links({
                escrow: escrow,
                settlement: Creation.addressOf(address(this), 3),
                direct: Creation.addressOf(address(this), 4),
                claims: address(trust_.claims()),
                processors: trust_.processors(),
                gate: gate
            }),
            windows
        );
        settlement = new BatchSettlement(registry, verifiers);
        direct = new DirectSettlement(registry);
    }
}
