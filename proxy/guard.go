// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	// An Envoy is looked at this often.
	lookEvery = time.Second
	heapPoll  = 250 * time.Millisecond
	// One that a signal has stopped is ended after this time. It takes connections still,
	// which wait in vain.
	stoppedLimit = 2 * time.Second
	// One that does not answer, and whose main thread does nothing, hangs.
	silentLimit = 5 * time.Second
	// One whose main thread works may be at a large change while its workers serve.
	busyLimit = 30 * time.Second
	// Of its bounds, what is told as trouble.
	nearlyAll = 0.9
)

// look is what was seen of an Envoy at a time.
type look struct {
	at       time.Time
	answered bool
	gone     bool // its admin socket: nobody can ask it
	thread   thread
}

// thread is the main thread of a process.
type thread struct {
	state byte   // as in proc_pid_stat(5); 0 = not known
	ticks uint64 // of processor time so far
}

const (
	waits     = 'S' // for something to do
	stopped   = 'T' // by a signal
	idleTicks = 1   // between two looks: those of the questions
)

func (t thread) lives() bool { return t.state != 0 && t.state != 'Z' && t.state != 'X' }

// watchdog tells from looks in turn whether an Envoy still does its work.
type watchdog struct {
	last           look
	stopped, quiet time.Time // since when; zero: it is not
	worked         time.Time // when it last answered, or its main thread did something
}

// see returns what is wrong, "" if nothing is, and whether Envoy has to go for it.
func (w *watchdog) see(l look) (trouble string, end bool) {
	last := w.last
	w.last = l
	if last.at.IsZero() {
		w.worked = l.at
	}
	if l.thread.state == stopped {
		if w.stopped.IsZero() {
			w.stopped = l.at
		}
		since := l.at.Sub(w.stopped)
		return fmt.Sprintf("stopped by a signal for %v", since.Round(time.Second)), since >= stoppedLimit
	}
	w.stopped = time.Time{}
	if l.answered || l.gone {
		w.quiet, w.worked = time.Time{}, l.at
		if l.gone {
			return "somebody has removed its admin socket: whether it serves is not known", false
		}
		return "", false
	}
	if w.quiet.IsZero() {
		w.quiet = l.at
		if !last.at.IsZero() { // somewhere between
			w.quiet = last.at
		}
	}
	silent := l.at.Sub(w.quiet)
	if l.thread.state != waits || l.thread.ticks > last.thread.ticks+idleTicks {
		w.worked = l.at
	}
	idle := l.at.Sub(w.worked)
	trouble = fmt.Sprintf("no answer for %v", silent.Round(time.Second))
	if idle < silentLimit {
		trouble += ", its main thread is busy"
	}
	return trouble, silent >= silentLimit && idle >= silentLimit || silent >= busyLimit
}

// uses is how much of its bounds an Envoy uses.
type uses struct {
	files, filesLimit   uint64
	memory, memoryLimit uint64 // resident bytes; limit 0: unlimited
	connections         uint64
	mostConnections     uint64 // 0: any number
}

// trouble names what is nearly used up; "": nothing.
func (u uses) trouble() string {
	near := func(n, limit uint64) bool { return limit > 0 && float64(n) >= nearlyAll*float64(limit) }
	switch {
	case u.mostConnections > 0 && u.connections >= u.mostConnections:
		return fmt.Sprintf("%d connections of clients are open, which is all that %d descriptors allow: further ones are refused", u.connections, u.filesLimit)
	case near(u.files, u.filesLimit):
		return fmt.Sprintf("%d of %d descriptors are open", u.files, u.filesLimit)
	case near(u.memory, u.memoryLimit):
		return fmt.Sprintf("%d of %d MiB of memory are used", u.memory>>20, u.memoryLimit>>20)
	}
	return ""
}

// guard looks at an Envoy until it ends, and ends it if it does not do its work any
// more.
func (s *supervisor) guard(g *generation) {
	var dog watchdog
	heard := false // it has answered, once
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	for {
		select {
		case <-g.done:
			return
		case <-s.ctx.Done():
			return
		case <-t.C:
		}
		l := look{at: time.Now(), thread: mainThread(g.pid)}
		var u uses
		if l.thread.state != stopped {
			l.answered, u = s.askGuarded(g)
			s.mu.Lock()
			heard = heard || l.answered || g.ready || g.adopted
			s.mu.Unlock()
			l.at = time.Now()
			_, err := os.Lstat(s.paths.Admin[g.bank])
			l.gone = heard && !l.answered && errors.Is(err, fs.ErrNotExist)
		}
		trouble, end := dog.see(l)
		if trouble == "" {
			trouble = u.trouble()
		}
		kills := outOfMemoryKills(g.pid)
		alive := mainThread(g.pid).lives() // and so none of them was its end
		s.mu.Lock()
		if trouble != "" && kindOf(trouble) != kindOf(g.trouble) {
			s.log.Warn("envoy is in trouble", "pid", g.pid, "bank", g.bank, "trouble", trouble)
		}
		if u.filesLimit > 0 {
			g.uses = u
		}
		g.trouble = trouble
		if alive {
			g.kills = kills
		}
		if end = end && g.guarded(); end {
			g.why = trouble
		}
		s.mu.Unlock()
		if end {
			s.log.Error("envoy is ended", "pid", g.pid, "bank", g.bank, "trouble", trouble)
			g.kill()
		}
	}
}

// kindOf is a trouble without its numbers.
func kindOf(trouble string) string {
	if i := strings.IndexAny(trouble, "0123456789"); i >= 0 {
		return trouble[:i]
	}
	return trouble
}

// guarded: what drains or stops has its own time to end, and one that is to take over by
// request, to get ready.
func (g *generation) guarded() bool {
	return g.role == Active || g.role == Standby || g.role == Relieved
}

func (s *supervisor) askGuarded(g *generation) (answered bool, u uses) {
	ctx, cancel := context.WithTimeout(s.ctx, askLimit)
	defer cancel()
	if _, err := g.admin.info(ctx); err != nil {
		return false, u
	}
	u = usesOf(g.pid)
	u.connections, _ = g.admin.connections(ctx) // it will answer the next time, or not
	if n := (bounds{files: u.filesLimit}).connections(); n > 0 {
		u.mostConnections = uint64(n)
	}
	return true, u
}

// kill ends a process at once.
func (p *process) kill() {
	if proc, err := os.FindProcess(p.pid); err == nil {
		_ = proc.Kill() // it may have ended
		_ = proc.Release()
	}
}

// EnvoyEnd is the unasked end of an Envoy.
type EnvoyEnd struct {
	PID int       `json:"pid"`
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// ending is why an Envoy that was not told to has ended.
func (g *generation) ending() *EnvoyEnd {
	e := &EnvoyEnd{PID: g.pid, At: time.Now()}
	switch exit := g.exit.Load(); {
	case g.why != "":
		e.Why = "ended by the proxy: " + g.why
	case g.kills.grown():
		e.Why = fmt.Sprintf("out of memory: ended by the kernel at the limit of %d MiB", memoryLimit(g.kills.group)>>20)
	case exit != nil:
		e.Why = *exit
	default:
		e.Why = "not known: an earlier proxy had started it"
	}
	return e
}
