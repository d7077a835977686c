// SPDX-License-Identifier: Apache-2.0

package serve

import "time"

// Waiting is how many keys something waits for.
func Waiting(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// SetWarmFor sets how long clients have to ask for what was in use before them.
func SetWarmFor(s *Server, d time.Duration) { s.warmFor = d }

// SetMaxStandIns sets how many stand-ins for clusters a client is given.
func SetMaxStandIns(s *Server, n int) { s.standIns = n }

// Held is how much is kept about clients and about laziness: of nothing set and no
// client, 0.
func Held(s *Server) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.leads) + len(s.restored) + len(s.waiting) + len(s.judged)
	for st := range s.streams {
		n += len(st.open) + len(st.resend)
		for _, sub := range st.subs {
			n += len(sub.has) + len(sub.names) + len(sub.forced)
		}
		if l := st.lazy; l != nil {
			n += len(l.tables) + len(l.names) + len(l.variants) + len(l.waiting) + len(l.warm) + len(l.uses) + l.idle.len() + len(l.putOff) +
				len(l.withheld) + len(l.asked) + len(l.askers) + l.standIns.len()
		}
	}
	return n
}
