"""Every model and baseline that this project ever shipped: what the few bytes in a file stand for.

SHA-256 of ``model.json`` or ``baseline.json``, and what it was called. Of a name the last is the current one;
the others stay for good, because there are files made with them.
"""

from __future__ import annotations

PUBLISHED = {
    "0e45ae353f4757262099f28b6e0e9182c6e61a5f32ed417b01994d91c1608758": "mnist",
    "0f884ddc34bb4b3f68d51ca1fba6a8fa5e90505fbf7770a5fe0f5df12f334660": "mnist",
    "e5eb0f8ddf82720da3aa769a79a9b42fce045eb992aaee65f0608d6b0545c201": "mnist",
    "071cbf3f1ad00dd0674bad0a8e5578f3a0f20851d4ed6286d550682d4958b80d": "mnist",
    "dc922c52e2365d4f2cd35682823e6ab38ddbff9b840739cc4e8db479aa29b98c": "photo",
    "30ed5ec879d30839d43cefda7cfd008d491de4508b3c0a9cb1081ad6c0e8c320": "photo",
    "a40b01543610317b2e526975344a59595f6fed7718ffb1cd33ecd9b0484806d4": "photo",
    "c68efd240703bb87eb13e76bfa5e1fb27ca854c54adf64b733e44412103fb2b2": "photo",
    "447c049095b632ec13c6e68edd4f8be0370e364df7208dcb99840ef1e75486a1": "photo-pixels",  # once photo
    "e705d8eef2f0555a14870560dda283f831deb43cfb3a1c1f0de3e70db7eb298a": "gaussian-ntc",
    "34f95b2cf7d7edb0bbfe0c168a2f0c8682ddcf141f5847790e9e7c129c0ece2c": "mnist-ntc",
    "85fad66c6d07e424f73f80392788eff2fad7ba086924e5046b7b15cef7f41297": "mnist-ntc",
    "19b5db589599f0e123a7946bc7403cf9d6c8e1f3e1418857f9c8a6247dc622bb": "mnist-ntc",
    "28cf3f9048f0bd0d7f07bf87965162d93552b6d396115dcf54d47718f99de090": "mnist-ntc",
    "d326e3a3ec503fb3a7837f6d8386d1de3c47a208a6b9e4d1066e5a052bc982bc": "mnist-ntc-block",
    "3c71f15f4c81a46aa0fd0ce436fa1200ec7d70b90463e6e0f72ef1e1b6506177": "photo-ntc-factorized",
    "e696183b41ed01873148964533da993ab3d60903707d787f1c30714222a3acae": "photo-ntc-factorized",
    "6d331c0072bdc958320f5aaa31dab388adea3ffecf5f75e9958478b7fb179d62": "photo-ntc-factorized",
    "1ea93f9159a0e2aa39555fc917be0084fd48f6a6b76fb90965f19fae09c2ea60": "photo-ntc-hyperprior",
}


def published(model_id: bytes) -> tuple[str, str, bool] | None:
    """Name, whole hash, and whether a later one has taken the name, of what begins with ``model_id``."""
    current = {name: sha256 for sha256, name in PUBLISHED.items()}
    for sha256, name in PUBLISHED.items():
        if model_id and bytes.fromhex(sha256).startswith(model_id):
            return name, sha256, current[name] != sha256
    return None
