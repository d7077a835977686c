// SPDX-License-Identifier: Apache-2.0

package triage

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"fairlead.io/fairlead/conformance/istio/world"
)

// WorkerEnv is set in processes that are to call Work with standard input and output.
const WorkerEnv = "FAIRLEAD_ISTIO_WORKER"

// A worker is replaced after so many scenarios: istiod's fake server never gives back all
// of its memory.
const shift = 120

// Pool runs scenarios in a number of workers. Results come in the order of the scenarios;
// each is told of as soon as it is there.
func Pool(workers int, all []*world.Scenario, tell func(Result)) ([]Result, error) {
	out := make([]Result, len(all))
	next := make(chan int, len(all))
	for i := range all {
		next <- i
	}
	close(next)
	var mu sync.Mutex
	errs := make(chan error, workers)
	for range workers {
		go func() {
			errs <- func() error {
				for {
					more, err := work(all, next, func(i int, r Result) {
						out[i] = r
						mu.Lock()
						defer mu.Unlock()
						tell(r)
					})
					if err != nil || !more {
						return err
					}
				}
			}()
		}()
	}
	var first error
	for range workers {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return out, first
}

// work is the shift of one worker.
func work(all []*world.Scenario, next <-chan int, done func(int, Result)) (more bool, err error) {
	i, ok := <-next
	if !ok {
		return false, nil
	}
	w, err := hire()
	if err != nil {
		return false, err
	}
	defer w.leave()
	for n := 1; ; n++ {
		r, err := w.do(all[i])
		if err != nil {
			return false, fmt.Errorf("worker at %s: %w", all[i].Name, err)
		}
		done(i, r)
		if n == shift {
			return true, nil
		}
		if i, ok = <-next; !ok {
			return false, nil
		}
	}
}

type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func hire() (*worker, error) {
	w := &worker{cmd: exec.Command("/proc/self/exe")}
	w.cmd.Env = append(os.Environ(), WorkerEnv+"=1")
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = json.NewDecoder(out)
	return w, w.cmd.Start()
}

func (w *worker) do(s *world.Scenario) (Result, error) {
	var r Result
	if err := json.NewEncoder(w.in).Encode(job{s.Name, s.Text}); err != nil {
		return r, err
	}
	return r, w.out.Decode(&r)
}

func (w *worker) leave() {
	w.in.Close()
	w.cmd.Wait()
}
