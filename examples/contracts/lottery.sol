// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A lottery whose winner can be known beforehand. Never deploy it.
contract Lottery {
    address[] public players;

    function enter() external payable {
        require(msg.value == 0.1 ether, "a ticket costs 0.1 ether");
        players.push(msg.sender);
    }

    function draw() external {
        uint256 winner = uint256(keccak256(abi.encodePacked(block.timestamp, players.length))) % players.length;
        address lucky = players[winner];
        delete players;
        payable(lucky).transfer(address(this).balance);
    }
}
