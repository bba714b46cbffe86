// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {ReceiptedPayment} from "./ReceiptedPayment.sol";

/// @title What buyers say of payees
/// @notice Reads like the reputation registry of ERC-8004, with a payee's address as its `agentId`. Its writing half is
/// {rate}: a word about a payee costs a settled payment to it. `clientAddress` is the owner whose money it was; indexes
/// count from 1 for each payee and client. Nothing that moves money reads any of this.
interface IReputation is IERC165 {
    /// @dev As in ERC-8004; `endpoint` is empty.
    event NewFeedback(
        uint256 indexed agentId,
        address indexed clientAddress,
        uint64 feedbackIndex,
        int128 value,
        uint8 valueDecimals,
        string indexed indexedTag1,
        string tag1,
        string tag2,
        string endpoint,
        string feedbackURI,
        bytes32 feedbackHash
    );
    event FeedbackRevoked(uint256 indexed agentId, address indexed clientAddress, uint64 indexed feedbackIndex);

    error ValueOutOfRange(int128 value, int128 minimum, int128 maximum);
    error TextTooLong(uint256 length, uint256 limit);
    error OnlyOwnerOrAgent(address caller, address owner, address agent);
    /// @notice The payee is the owner or the agent itself.
    error OwnPayee(address payee);
    error NotSettled(address agent, uint64 seq, uint64 settled);
    error RatedAlready(address agent, uint64 seq);
    error NoFeedback(uint256 agentId, address clientAddress, uint64 feedbackIndex);

    /// @notice Rates the payee of a settled payment, by its mandate's owner or its agent, once for each payment and until
    /// the mandate's claims end.
    /// @param value 0 … 100.
    /// @param tag1 what is rated, such as `starred` or `uptime`; `tag2` a part of it. At most 32 bytes each, or empty.
    /// @param feedbackURI where more is said, at most 256 bytes, and `feedbackHash` its keccak256; or empty and 0.
    /// @dev Besides the errors here, those of a payment without both its signatures.
    function rate(
        ReceiptedPayment calldata payment,
        int128 value,
        string calldata tag1,
        string calldata tag2,
        string calldata feedbackURI,
        bytes32 feedbackHash
    ) external returns (uint64 feedbackIndex);

    /// @notice Takes back the caller's own word about a payee.
    function revokeFeedback(uint256 agentId, uint64 feedbackIndex) external;

    /// @notice The mean of what some clients said, without what they took back.
    /// @param clientAddresses whose; empty means everybody's.
    /// @param tag1 only with these tags; empty means any.
    /// @return count how many words that are.
    /// @return summaryValue their mean, rounded down, with `summaryValueDecimals` decimals.
    function getSummary(
        uint256 agentId,
        address[] calldata clientAddresses,
        string calldata tag1,
        string calldata tag2
    ) external view returns (uint64 count, int128 summaryValue, uint8 summaryValueDecimals);

    function readFeedback(
        uint256 agentId,
        address clientAddress,
        uint64 feedbackIndex
    ) external view returns (int128 value, uint8 valueDecimals, string memory tag1, string memory tag2, bool isRevoked);

    /// @notice Everybody who ever said something about a payee.
    function getClients(uint256 agentId) external view returns (address[] memory);

    /// @notice How many words a client said about a payee.
    function getLastIndex(uint256 agentId, address clientAddress) external view returns (uint64);

    /// @notice Whether a payment was rated.
    function isRated(address agent, uint64 seq) external view returns (bool);
}
