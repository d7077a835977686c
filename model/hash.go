// SPDX-License-Identifier: Apache-2.0

package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
)

// Bytes is the canonical encoding of a value's content: JSON with the fields in
// declaration order, map keys sorted and origins left out. Lists must already be
// in the order that the type documents.
func Bytes(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("model: value that cannot be encoded: " + err.Error()) // a type of ours that JSON cannot take
	}
	return b
}

// Hash is the first half of the SHA-256 of the content, in hex (128 bits).
func Hash(v any) string {
	s := sha256.Sum256(Bytes(v))
	return hex.EncodeToString(s[:16])
}

// ID is the content's hash as a number for the kernel; never 0 and never below
// 256, which are reserved. 64 bits of SHA-256: finding a second content for a
// given number takes 2^63 tries on average.
func ID(v any) uint64 {
	s := sha256.Sum256(Bytes(v))
	if n := binary.BigEndian.Uint64(s[:8]); n >= 256 {
		return n
	}
	return 256
}
