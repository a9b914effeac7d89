"""NetKet finds the ground state of an Ising chain of ten spins."""

import netket as nk

hilbert = nk.hilbert.Spin(s=0.5, N=10)
hamiltonian = nk.operator.Ising(hilbert, graph=nk.graph.Chain(10), h=1.0)
state = nk.vqs.MCState(
    nk.sampler.MetropolisLocal(hilbert, n_chains=8),
    nk.models.RBM(alpha=1, param_dtype=float),
    n_samples=512,
    seed=1,
    sampler_seed=2,
)
driver = nk.driver.VMC_SR(
    hamiltonian,
    nk.optimizer.Sgd(learning_rate=0.1),
    variational_state=state,
    diag_shift=0.01,
)
driver.run(n_iter=80, show_progress=False)
exact = nk.exact.lanczos_ed(hamiltonian)[0]
print(abs(state.expect(hamiltonian).mean.real - exact) / abs(exact))
