// SPDX-License-Identifier: Apache-2.0

package serve

// Waiting is how many keys something waits for.
func Waiting(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}
